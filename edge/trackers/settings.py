"""What a tracker can be told, and the published algorithms as such settings.

Times are seconds, noise is a share of the box size, thresholds are in [0, 1]. The frame rate appears nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """All that can be set; the defaults were chosen on all data sets together (docs/tracking.md).

    Attributes:
        score_low: detections below it are ignored.
        score_high: detections from here on are matched first; the others only continue tracks just seen.
        score_new: detections from here on start a track.
        match_high, match_low, match_new: least similarity in the first round (good detections), the second (weak
            detections) and the third (tracks not confirmed yet).
        lost_price: what a track that was not seen in the frame before must be better than one that was, to take a box
            that both fit. Where nobody else wants it, it is free.
        match_last: least overlap with the box seen last, in a round for what the first left over (OC-SORT's
            observation-centric recovery); 1 switches the round off.
        confirm_hits: detections that confirm a track; those of the very first frame are confirmed at once.
        lost_s: how long an unseen track is remembered.
        coast_s: how long an unseen track is still returned, at its predicted place.
        position_noise, speed_noise: growth of the deviation of position and speed, in box sizes per √s and
            box sizes per s per √s.
        start_speed: deviation of the speed of a new track, in box sizes per s.
        measurement_noise: deviation of a detected edge, in box sizes, where the score is 1.
        weak_noise: how much larger that deviation is where the score is 0 (1 = twice): the box of a half-hidden object
            is a worse measurement.
        fuse_score: multiply the similarity of good detections with their score (ByteTrack).
        score_weight: share of the similarity that a difference between the scores of track and detection costs
            (Hybrid-SORT's confidence state).
        height_power: exponent of the height overlap in the similarity (Hybrid-SORT); 0 switches it off.
        growth_per_s: boxes are grown by this share of their size on each side per second between two frames before
            they are compared, at most by half (C-BIoU, driven by time).
        direction_weight: what the agreement with the direction of travel adds (OC-SORT's momentum).
        replay_s: so long between two sightings is a gap even where no frame was missed; any missed frame is one.
        replay_steps: after a gap the filter is run again over so many points between the box seen last and the new
            one (OC-SORT's observation-centric re-update); 0 switches it off.
        own_motion: estimate the shift that all boxes share, which the camera's motion, if it is given, leaves over: by
            the median, or by a vote where the boxes are not where they were expected.
        appearance_weight: what a difference of 1 in the cosine similarity of looks adds to the similarity of rivals,
            where an embedding model is given.
        per_class: only boxes of the same class match.
        duplicate_overlap: of two tracks that overlap more than this the younger ends; 1 keeps both.
        duplicate_s: a track that was watched for longer is no duplicate: it is hidden by the other.
        max_objects: the most detections taken per frame and tracks kept; the highest scores win.
    """

    score_low: float = 0.1
    score_high: float = 0.5
    score_new: float = 0.6
    match_high: float = 0.2
    match_low: float = 0.5
    match_new: float = 0.3
    lost_price: float = 0.1
    match_last: float = 1.0
    confirm_hits: int = 2
    lost_s: float = 2.0
    coast_s: float = 0.0
    position_noise: float = 0.274
    speed_noise: float = 0.7
    start_speed: float = 1.875
    measurement_noise: float = 0.1
    weak_noise: float = 1.5
    fuse_score: bool = True
    score_weight: float = 0.3
    height_power: float = 0.75
    growth_per_s: float = 2.5
    direction_weight: float = 0.0
    replay_s: float = 0.06
    replay_steps: int = 2
    own_motion: bool = True
    appearance_weight: float = 1.0
    per_class: bool = True
    duplicate_overlap: float = 0.85
    duplicate_s: float = 1.0
    max_objects: int = 2000

    @classmethod
    def for_scores(cls, score: float, track_score: float) -> TrackerSettings:
        """The defaults for a model whose good objects have ``score``, and whose weakest useful ones ``track_score``."""
        return cls(score_low=min(track_score, score), score_high=score, score_new=min(score + 0.1, 0.95))

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= 0:
                raise ValueError(f"{field.name} must not be negative, found {value}")
        if self.confirm_hits < 1 or self.max_objects < 1:
            raise ValueError("confirm_hits and max_objects must be at least 1")


# what the published trackers below share: the noise of their Kalman filters, and nothing of what came later
_PUBLISHED = TrackerSettings(
    speed_noise=1.03,
    measurement_noise=0.05,
    weak_noise=0.0,
    score_weight=0.0,
    height_power=0.0,
    growth_per_s=0.0,
    own_motion=False,
    lost_price=0.0,
)

# SORT, https://arxiv.org/abs/1602.00763: overlap only, gone when unseen for about a frame, three hits
SORT = replace(
    _PUBLISHED,
    score_low=0.5,
    score_high=0.5,
    score_new=0.5,
    match_high=0.3,
    confirm_hits=3,
    lost_s=0.1,
    fuse_score=False,
    replay_steps=0,
    duplicate_overlap=1.0,
)

# ByteTrack, https://arxiv.org/abs/2110.06864: two rounds by score
BYTETRACK = replace(
    _PUBLISHED,
    score_high=0.6,
    score_new=0.7,
    match_high=0.1,
    lost_s=1.0,
    replay_steps=0,
    duplicate_s=float("inf"),
)

# OC-SORT, https://arxiv.org/abs/2203.14360: momentum, recovery by the last box, re-update after a gap
OCSORT = replace(
    _PUBLISHED,
    score_low=0.6,
    score_high=0.6,
    score_new=0.6,
    match_high=0.3,
    match_last=0.3,
    confirm_hits=3,
    lost_s=1.0,
    fuse_score=False,
    direction_weight=0.2,
    replay_s=float("inf"),
    replay_steps=8,
    duplicate_overlap=1.0,
)
