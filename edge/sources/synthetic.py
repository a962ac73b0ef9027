"""The synthetic street as a source: ``synthetic://street?seed=1&fps=30&size=1280x720&objects=12&frames=300&live=1``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from edge.errors import SourceError
from edge.interfaces import SourceInfo
from edge.types import UInt8

if TYPE_CHECKING:
    from edge.scene.street import Street
    from edge.scene.truth import SceneTruth


@dataclass(frozen=True, slots=True)
class SyntheticSettings:
    """What a ``synthetic://`` address says.

    Attributes:
        seed: of the street.
        fps: frames per second.
        width, height: pixels.
        objects: at most so many at a time.
        frames: length, None for endless.
        live: paced by the clock; frames that nobody read in time are lost.
    """

    seed: int = 1
    fps: float = 30.0
    width: int = 1280
    height: int = 720
    objects: int = 12
    frames: int | None = None
    live: bool = False


def parse_synthetic(uri: str) -> SyntheticSettings:
    """Read a ``synthetic://street?…`` address.

    Raises:
        SourceError: an unknown scene, an unknown key or a value that is not possible.
    """
    parts = urlsplit(uri)
    if parts.scheme != "synthetic" or parts.netloc != "street" or parts.path not in ("", "/"):
        raise SourceError(f"{uri}: there is no such synthetic scene; expected synthetic://street?seed=1&size=1280x720")
    values: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in ("seed", "fps", "size", "objects", "frames", "live"):
            raise SourceError(f"{uri}: unknown key '{key}'; expected seed, fps, size, objects, frames or live")
        values[key] = value
    width, height = _size(uri, values.get("size", "1280x720"))
    return SyntheticSettings(
        seed=_whole(uri, "seed", values.get("seed", "1"), 0, 2**63 - 1),
        fps=_fps(uri, values.get("fps", "30")),
        width=width,
        height=height,
        objects=_whole(uri, "objects", values.get("objects", "12"), 0, 200),
        frames=_whole(uri, "frames", values["frames"], 1, 2**40) if "frames" in values else None,
        live=bool(_whole(uri, "live", values.get("live", "0"), 0, 1)),
    )


def _whole(uri: str, key: str, value: str, low: int, high: int) -> int:
    if value.isascii() and value.isdecimal() and low <= int(value) <= high:
        return int(value)
    raise SourceError(f"{uri}: {key}={value} is not possible; expected a whole number from {low} to {high}")


def _fps(uri: str, value: str) -> float:
    try:
        fps = float(value)
    except ValueError:
        fps = 0.0
    if 0.1 <= fps <= 1000:
        return fps
    raise SourceError(f"{uri}: fps={value} is not possible; expected frames per second from 0.1 to 1000")


def _size(uri: str, value: str) -> tuple[int, int]:
    width, cross, height = value.partition("x")
    sizes = [int(part) if part.isascii() and part.isdecimal() else 0 for part in (width, height)]
    if cross and all(64 <= part <= 4096 for part in sizes):
        return sizes[0], sizes[1]
    raise SourceError(
        f"{uri}: size={value} is not possible; expected WIDTHxHEIGHT, each from 64 to 4096, like 1280x720"
    )


class SyntheticSource:
    """A street as a source. Without ``live`` it gives every frame as fast as it is read; with it, by the clock."""

    def __init__(
        self,
        settings: SyntheticSettings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Draw the street.

        Args:
            settings: what to show.
            clock: seconds, monotonic; used by live scenes.
            sleep: waits for so many seconds; used by live scenes.
        """
        self._settings = settings
        self._clock, self._sleep = clock, sleep
        from edge.scene.street import Street

        self._street: Street | None = Street(
            settings.seed, settings.width, settings.height, settings.fps, settings.objects
        )
        self._next = 0
        self._start_s: float | None = None
        self._truth: SceneTruth | None = None
        self.info = SourceInfo(
            settings.width, settings.height, settings.fps, settings.live, settings.frames, "synthetic street"
        )

    def read(self) -> tuple[UInt8, int | None] | None:
        """Render the next picture; see ``edge.interfaces.Source``."""
        settings = self._settings
        if self._street is None:
            raise SourceError("the synthetic street was closed; open it again to read from it")
        index = self._wait() if settings.live else self._next
        if settings.frames is not None and index >= settings.frames:
            return None
        image, self._truth = self._street.render(index)
        self._next = index + 1
        return image, None if settings.live else round(index * 1e9 / settings.fps)

    def _wait(self) -> int:
        """Wait until the next frame is due; the index of the newest one that is."""
        now_s = self._clock()
        if self._start_s is None:
            self._start_s = now_s
        due_s = self._start_s + self._next / self._settings.fps
        if now_s < due_s:
            self._sleep(due_s - now_s)
            return self._next
        # a slow reader skips what it missed, as with a camera
        return max(self._next, int((now_s - self._start_s) * self._settings.fps))

    @property
    def truth(self) -> SceneTruth:
        """What is in the frame that was read last.

        Raises:
            ValueError: nothing was read yet.
        """
        if self._truth is None:
            raise ValueError("no frame was read yet, so there is no truth")
        return self._truth

    def close(self) -> None:
        """Free the street's pictures. May be called twice."""
        self._street = None


def open_synthetic(uri: str) -> SyntheticSource:
    """Open ``synthetic://street?seed=1&fps=30&size=1280x720&objects=12&frames=300&live=1``; every key may be left out.

    Raises:
        SourceError: the address has an unknown key or an impossible value.
    """
    return SyntheticSource(parse_synthetic(uri))
