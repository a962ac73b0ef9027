"""Names of key points, and which of them are joined by a line when a figure is drawn. K key points."""

from __future__ import annotations

from collections.abc import Sequence

# the joints of a person in COCO's order, which every pose model trained on COCO keeps
COCO_PERSON = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
COCO_LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
# how far apart people set each joint, as a share of the object's size; COCO's own figures for its evaluation
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip

# limbs of any figure whose points are called so
_SIDED = (("shoulder", "elbow"), ("elbow", "wrist"), ("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"))
_MIDDLE = (("head", "left_shoulder"), ("head", "right_shoulder"))
# of points that nobody has measured
USUAL_SIGMA = 0.05


def sigmas_of(count: int, names: Sequence[str] = ()) -> tuple[float, ...]:
    """The K tolerances that key points are judged by: COCO's for its 17 and for joints that it has by name.

    Everything else has the same one.
    """
    if not names and count == len(COCO_SIGMAS):
        return COCO_SIGMAS
    known = dict(zip(COCO_PERSON, COCO_SIGMAS, strict=True))
    return tuple(known.get(name, USUAL_SIGMA) for name in names) or (USUAL_SIGMA,) * count


def keypoint_names(count: int, given: Sequence[str] | None, classes: Sequence[str]) -> tuple[str, ...]:
    """The K names: those given; COCO's for 17 points of a model whose only class is ``person``; else numbers from 0."""
    if given:
        return tuple(given)
    if count == len(COCO_PERSON) and tuple(classes) == ("person",):
        return COCO_PERSON
    return tuple(str(number) for number in range(count))


def limbs_of(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of key points that are joined: COCO's person, or joints by name; none where nothing is known of them."""
    if tuple(names) == COCO_PERSON:
        return COCO_LIMBS
    sided = [(f"{side}_{first}", f"{side}_{second}") for side in ("left", "right") for first, second in _SIDED]
    across = [(f"left_{joint}", f"right_{joint}") for joint in ("shoulder", "hip")]
    place = {name: number for number, name in enumerate(names)}
    return tuple((place[a], place[b]) for a, b in (*sided, *across, *_MIDDLE) if a in place and b in place)
