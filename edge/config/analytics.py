"""What a user may write in TOML about tracking, lines, zones, ground calibration, heat maps and the second stage."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from edge.config.parts import part_name
from edge.config.section import Section

Point = tuple[float, float]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
AnchorName = Literal[
    "bottom-centre",
    "centre",
    "top-centre",
    "left-centre",
    "right-centre",
    "bottom-left",
    "bottom-right",
    "top-left",
    "top-right",
]


def _known_anchor(anchor: str) -> str:
    """A point of the box, or one that the model gives: whether it does is seen when the model is known."""
    own = anchor == "mask-foot" or (anchor.startswith("keypoint:") and len(anchor) > len("keypoint:"))
    if not own and anchor not in get_args(AnchorName):
        choices = ", ".join((*get_args(AnchorName), "mask-foot"))
        raise ValueError(f"expected one of {choices}, or keypoint:NAME with a key point of the model")
    return anchor


# lines and zones may also follow what the model gives next to the box
Anchor = Annotated[str, Field(max_length=80), AfterValidator(_known_anchor)]

TRACKERS = ("edge", "bytetrack", "ocsort", "sort", "off")
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# a van that is car and truck at once is one object: it shall have one box, one id and one count
DUPLICATE_IOU = 0.8


class ScheduleSettings(Section):
    """When a line or zone is watched. An end before the start is on the next day; equal ones mean the whole day.

    Attributes:
        days: the days on which it starts.
        start_at, end_at: local times of day, the end exclusive.
        time_zone: ``local`` or an IANA name such as ``Europe/Berlin``.
    """

    days: tuple[Day, ...] = DAYS
    start_at: time = time(0, 0)
    end_at: time = time(0, 0)
    time_zone: str = "local"


class _Drawn(Section):
    """Something drawn on the picture and watched for objects of some classes.

    Attributes:
        points_px: corners in pixels of the frame.
        points_share: corners as shares of the frame's width and height; exactly one of the two is given.
        anchor: the point that stands for the object: one of its box; ``keypoint:NAME``, a key point of the model; or
            ``mask-foot``, the lowest point of its mask.
        classes: names of the classes that matter; empty for all.
        band_box_share, band_px: half width of the band around the drawn edge in which an object keeps its side: this
            share of the box size (mean of width and height), and at least these pixels.
        settle_s: how long an object must be seen beyond the band, at least twice, before it has changed sides.
        min_box_px: the smallest box that occurs; decides whether an edge near the frame's border can be reached.
        schedules: when it is watched; empty for always.
    """

    name: str = Field(min_length=1, max_length=64)
    points_px: tuple[Point, ...] | None = None
    points_share: tuple[tuple[Share, Share], ...] | None = None
    anchor: Anchor = "bottom-centre"
    classes: tuple[str, ...] = ()
    band_box_share: Share = 0.1
    band_px: float = Field(default=2.0, gt=0)
    settle_s: float = Field(default=0.1, ge=0, le=60)
    min_box_px: float = Field(default=16.0, gt=0)
    schedules: tuple[ScheduleSettings, ...] = ()

    @model_validator(mode="after")
    def _has_points_once(self) -> _Drawn:
        if (self.points_px is None) == (self.points_share is None):
            raise ValueError(f"'{self.name}' needs exactly one of points_px and points_share")
        return self

    def pixels(self, width: int, height: int) -> tuple[Point, ...]:
        """The corners in pixels of a frame of this size."""
        if self.points_px is not None:
            return self.points_px
        return tuple((x * width, y * height) for x, y in self.points_share or ())


class LineSettings(_Drawn):
    """A line from its first to its second point.

    Look along it in the picture: left to right is ``in``, right to left is ``out``.
    """


class ZoneSettings(_Drawn):
    """A polygon. What is None is not watched.

    Attributes:
        settle_s: see ``LineSettings``; applies to entering and leaving.
        loiter_s: an object that stays longer than this raises ``zone_loitering``, once per visit.
        crowd_count, crowd_s: this many objects for this long raise ``zone_crowded``.
        stopped_s: an object slower than ``stopped_heights_per_s`` for this long raises ``object_stopped``.
        stopped_heights_per_s: mean speed over ``stopped_s``, in box heights per second.
    """

    settle_s: float = Field(default=0.25, ge=0, le=60)
    loiter_s: Seconds | None = None
    crowd_count: int | None = Field(default=None, gt=0)
    crowd_s: Seconds = 2.0
    stopped_s: Seconds | None = None
    stopped_heights_per_s: float = Field(default=0.05, gt=0, le=10)


class GroundSettings(Section):
    """Four points of the ground plane, in the picture and in metres, in the same order around the quadrilateral.

    Attributes:
        image_px: in pixels of the frame.
        image_share: as shares of the frame's size; exactly one of the two is given.
        ground_m: in metres, from any origin.
        max_m_per_px: where one pixel covers more ground than this, speeds and positions are not given.
    """

    image_px: tuple[Point, Point, Point, Point] | None = None
    image_share: tuple[Point, Point, Point, Point] | None = None
    ground_m: tuple[Point, Point, Point, Point]
    max_m_per_px: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _has_points_once(self) -> GroundSettings:
        if (self.image_px is None) == (self.image_share is None):
            raise ValueError("ground needs exactly one of image_px and image_share")
        return self

    def pixels(self, width: int, height: int) -> tuple[Point, ...]:
        """The four points in pixels of a frame of this size."""
        if self.image_px is not None:
            return self.image_px
        return tuple((x * width, y * height) for x, y in self.image_share or ())


class HeatmapSettings(Section):
    """Where objects spend their time.

    Attributes:
        cell_px: size of a cell of the grid.
        half_life_s: after this long a visit weighs half; None: it never fades.
    """

    cell_px: int = Field(default=16, ge=4, le=256)
    half_life_s: Seconds | None = None
    anchor: AnchorName = "bottom-centre"
    classes: tuple[str, ...] = ()


class AnalyticsSettings(Section):
    """All that is watched in one stream.

    Attributes:
        lost_s: a track unseen for this long has left its zones; longer than the tracker keeps lost tracks.
        forget_s: a track unseen for this long is forgotten; until then it may come back on the other side of a line.
    """

    lines: tuple[LineSettings, ...] = ()
    zones: tuple[ZoneSettings, ...] = ()
    ground: GroundSettings | None = None
    heatmap: HeatmapSettings | None = None
    lost_s: Seconds = 3.0
    forget_s: Seconds = 30.0

    @model_validator(mode="after")
    def _names_differ(self) -> AnalyticsSettings:
        for kind, parts in (("line", self.lines), ("zone", self.zones)):
            names = [part.name for part in parts]
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"two {kind}s are named '{min(twice)}'; every {kind} of a stream needs its own name")
        if self.forget_s < self.lost_s:
            raise ValueError(f"forget_s ({self.forget_s:g}) must not be less than lost_s ({self.lost_s:g})")
        return self


class LoudSettings(Section):
    """When the sound of a camera is an event, ``loud``.

    Attributes:
        dbfs: from this level on: root of the mean square against full scale, in decibels.
        window_s: over which it is measured.
        hold_s: how long it must stay so loud.
        cool_down_s: from one event to the next.
        schedules: when it is watched; empty for always.
    """

    dbfs: float = Field(default=-25.0, ge=-90, le=0)
    window_s: float = Field(default=0.5, ge=0.1, le=10)
    hold_s: float = Field(default=0.0, ge=0, le=3600)
    cool_down_s: float = Field(default=30.0, ge=0, le=86_400)
    schedules: tuple[ScheduleSettings, ...] = ()


class CropStageSettings(Section):
    """A classifier that looks at the crops of tracked objects.

    Attributes:
        classes: detected classes to look at; empty for all.
        min_box_px: smaller boxes (shorter side) are not looked at.
        margin_share: how much of the box size is added around the crop, on every side.
        interval_s: the least time between two looks at one track.
        refresh_s: after this long a track is looked at again even if its view is no better.
        better_share: how much better, as a share, a view must be to be looked at before ``refresh_s``.
        max_per_frame: at most this many crops per frame and stream, the most needed first.
        new_share: weight of a new result in the average of a track's probabilities.
        min_score: labels below this probability are not given.
        forget_s: a track unseen for this long is forgotten.
    """

    classes: tuple[str, ...] = ()
    min_box_px: float = Field(default=24.0, gt=0)
    margin_share: Share = 0.05
    interval_s: Seconds = 0.5
    refresh_s: Seconds = 5.0
    better_share: float = Field(default=0.2, ge=0)
    max_per_frame: int = Field(default=4, gt=0)
    new_share: float = Field(default=0.4, gt=0, le=1)
    min_score: Share = 0.3
    forget_s: Seconds = 30.0


class SecondStageSettings(CropStageSettings):
    """The second stage of a stream: ``CropStageSettings`` and ``model``, the name of a classifier among the models."""

    model: ModelName


class TrackSettings(Section):
    """How the objects of a stream are followed, as a user writes it in TOML.

    Attributes:
        method: one of ours, or the tracker of an installed package.
        camera_motion: what the camera's own motion is measured by: ``auto``, the pictures while they show that the
            camera moves; ``pictures``, every frame of them; ``boxes``, nothing but the detections.
        appearance_model: name of an embedding model that settles who is who where boxes leave a doubt.
        duplicate_iou: a box that overlaps a surer one by more than this shows the same object, whatever their classes;
            1 keeps them all.
    """

    method: Annotated[str, part_name("edge.trackers", TRACKERS)] = "edge"
    camera_motion: Literal["auto", "boxes", "pictures"] = "auto"
    appearance_model: ModelName | None = None
    duplicate_iou: float = Field(default=DUPLICATE_IOU, gt=0, le=1)
