"""What a user may write in TOML about a camera's picture: motion gate and health. Pure settings, no pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from edge.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]
Corner = tuple[Share, Share]
# what may turn a camera
TurningKind = Literal[
    "line_crossed", "zone_entered", "zone_left", "zone_loitering", "zone_crowded", "object_stopped", "loud"
]


class MotionGateSettings(Section):
    """Pictures in which nothing moves do not go to the model, except for a few per second."""

    enabled: bool = False
    floor_fps: float = Field(default=1.0, ge=0.1, le=60)
    hold_s: float = Field(default=2.0, ge=0, le=3600)
    min_levels: float = Field(default=10.0, ge=1, le=255)
    min_share: float = Field(default=0.001, gt=0, le=1)


class HealthSettings(Section):
    """Which faults of a camera's picture are told as events. 0 seconds: not watched."""

    frozen_s: float = Field(default=20.0, ge=0, le=3600)
    hold_s: float = Field(default=3.0, ge=0, le=3600)


class TurnSettings(Section):
    """What turns a camera.

    Attributes:
        event: its kind.
        name: of the line or zone that it is of; None: of any.
        classes: of the object; empty: any. An event without an object has no class to ask for.
        stream: whose event; None: this camera's own.
        preset: where it turns to.
    """

    event: TurningKind
    name: str | None = None
    classes: tuple[str, ...] = ()
    stream: str | None = None
    preset: str = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _has_a_place(self) -> TurnSettings:
        if self.event == "loud" and (self.name is not None or self.classes):
            raise ValueError("loud is of no line, zone or class; leave name and classes out")
        return self


class PtzSettings(Section):
    """A camera that can be turned to its presets from the page and by events (ONVIF), with the login of its stream.

    Attributes:
        home: name of the preset in which lines and zones were drawn; away from it they rest.
        onvif: HOST, HOST:PORT or address of its device service; None: at the host of ``source``.
        back_s: how long after it was turned away it goes home by itself.
        settle_s: how long it takes to turn; lines and zones rest so much longer.
        on_event: what turns it while it is at home.
        cool_down_s: after an event has turned it no other does for so long.
    """

    home: str = Field(min_length=1, max_length=64)
    onvif: Annotated[str, Field(pattern=r"^(https?://)?[^\s@?#]+$")] | None = None
    back_s: float = Field(default=60, ge=1, le=86_400)
    settle_s: float = Field(default=5, ge=0, le=120)
    on_event: tuple[TurnSettings, ...] = ()
    cool_down_s: float = Field(default=300, ge=0, le=86_400)

    @model_validator(mode="after")
    def _turns_away(self) -> PtzSettings:
        if any(rule.preset == self.home for rule in self.on_event):
            raise ValueError(f"on_event: an event finds the camera at its home, {self.home!r}; expected another preset")
        return self


def _region(roi: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if roi[0] >= roi[2] or roi[1] >= roi[3]:
        raise ValueError("expected left, top, right, bottom as shares of the picture, left < right and top < bottom")
    return roi


def _polygon(mask: tuple[Corner, ...]) -> tuple[Corner, ...]:
    edges = list(zip(mask, (*mask[1:], mask[0]), strict=True))
    for index, first in enumerate(edges):
        if any(_cross(first, second) for second in edges[index + 1 :]):
            raise ValueError("the polygon's edges cross each other, which would leave a part uncovered")
    return mask


def _cross(first: tuple[Corner, Corner], second: tuple[Corner, Corner]) -> bool:
    """Whether two edges cross inside both of them."""
    (a, b), (c, d) = first, second
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(start: Corner, end: Corner, point: Corner) -> float:
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


Region = Annotated[tuple[Share, Share, Share, Share], AfterValidator(_region)]
Mask = Annotated[tuple[Corner, ...], Field(min_length=3), AfterValidator(_polygon)]
Side = Annotated[int, Field(ge=16, le=8192)]
TileCount = Annotated[int, Field(ge=1, le=8)]
