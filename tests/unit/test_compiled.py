"""What is built in C gives what NumPy gives, bit for bit, and reads nothing beyond what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled_parts import both
from hypothesis import given
from hypothesis import strategies as st
from needs import COMPILED, need

from edge import boxes
from edge.compiled import SWITCH, built
from edge.diagnose.doctor import _parts_in_c
from edge.errors import EngineError
from edge.heads import candidates
from edge.heads.choose import open_head
from edge.models.manifest import InputSpec, Manifest, Thresholds
from edge.models.preprocess import fit
from edge.result_json import ResultEncoder
from edge.types import Detections

SPEC = InputSpec(name="x", width=416, height=416, layout="nhwc", dtype="uint8", colour="bgr")
SIZES = [(1280, 720), (320, 240), (417, 999)]
SEEDS = st.integers(0, 2**32 - 1)
ODD = np.array([np.nan, np.inf, -np.inf, -0.0, 1e38], np.float32)


@pytest.fixture(autouse=True, scope="module")
def compiled() -> Any:
    need(COMPILED)
    return built("_boxes")


def manifest_of(head: str = "edgenet", *, needs_nms: bool = True, first_class: int = 0) -> Manifest:
    return Manifest(
        name="m",
        task="detect",
        head=head,  # type: ignore[arg-type]
        input=SPEC,
        classes=tuple(f"c{index}" for index in range(7)),
        thresholds=Thresholds(score=0.5, track_score=0.1, iou=0.45),
        needs_nms=needs_nms,
    )


def same(one: Any, other: Any) -> bool:
    """Whether arrays are the same to the bit; where they are no numbers, both are none."""
    return all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(one, other, strict=True)
    )


def parts(found: Detections) -> tuple[Any, ...]:
    return found.xyxy, found.score, found.class_id


def heap(seed: int, num: int, *, has_odd: bool = False) -> tuple[Any, Any, Any]:
    """Boxes of the model's input that overlap, scores with ties, classes."""
    rng = np.random.default_rng(seed)
    corner = np.repeat(rng.uniform(-20, 400, (-(-num // 4), 2)), 4, axis=0)[:num] + rng.normal(0, 5, (num, 2))
    xyxy = np.concatenate([corner, corner + rng.uniform(-2, 90, (num, 2))], axis=1).astype(np.float32)
    score = rng.choice(np.linspace(0, 1, 23, dtype=np.float32), num)
    if has_odd and num:
        xyxy[rng.integers(0, num, 3), rng.integers(0, 4, 3)] = rng.choice(ODD, 3)
    return xyxy, score, rng.integers(0, 7, num).astype(np.int32)


@given(SEEDS, st.integers(0, 300), st.floats(0, 1), st.booleans())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_suppression_keeps_the_same_boxes_in_the_same_order(seed: int, num: int, threshold: float, odd: bool) -> None:
    xyxy, score, class_id = heap(seed, num, has_odd=odd)
    assert same(*both(lambda: (boxes.nms(xyxy, score, threshold),)))
    assert same(*both(lambda: (boxes.nms_per_class(xyxy, score, class_id, threshold),)))


@given(
    SEEDS,
    st.integers(0, 300),
    st.sampled_from(SIZES),
    st.booleans(),
    st.sampled_from(["f4", "i4", "i8"]),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_listed_objects_are_placed_the_same(
    seed: int, num: int, size: tuple[int, int], needs_nms: bool, kind: str, odd: bool
) -> None:
    xyxy, score, class_id = heap(seed, num, has_odd=odd)
    head, box = open_head(manifest_of(needs_nms=needs_nms)), fit(*size, SPEC)
    outputs = {"boxes": xyxy[None], "scores": score[None], "labels": class_id.astype(kind)[None]}
    assert same(*both(lambda: parts(head.decode(outputs, [box])[0])))  # type: ignore[arg-type]


@given(SEEDS, st.integers(0, 200), st.sampled_from(SIZES), st.booleans())
def test_maps_and_points_stay_with_their_objects(seed: int, num: int, size: tuple[int, int], needs_nms: bool) -> None:
    xyxy, score, class_id = heap(seed, num)
    points = np.repeat(np.arange(num, dtype=np.float32)[:, None, None], 2, axis=2)
    manifest, box = manifest_of(needs_nms=needs_nms), fit(*size, SPEC)

    def work() -> tuple[Any, ...]:
        found = candidates.detections(xyxy, score, class_id, box, manifest, points=points)
        return (*parts(found), np.zeros(0) if found.keypoints is None else found.keypoints)

    assert same(*both(work))


@given(SEEDS, st.integers(0, 700), st.integers(1, 9), st.booleans(), st.booleans(), st.booleans())
def test_the_best_class_is_the_same_however_the_scores_lie(
    seed: int, num: int, num_classes: int, turned: bool, weighted: bool, odd: bool
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.choice(np.linspace(0, 1, 23, dtype=np.float32), (num, 5 + num_classes))
    if odd and num:
        raw[rng.integers(0, num, 9), rng.integers(0, 5 + num_classes, 9)] = np.nan
    raw = np.ascontiguousarray(raw.T).T if turned else raw
    weights = raw[:, 4] if weighted else None
    assert same(*both(lambda: candidates.best_class(raw[:, 5:], 0.6, weights)))


def test_of_too_many_candidates_numpy_keeps_the_best() -> None:
    scores = np.random.default_rng(3).uniform(0.5, 1, (2 * candidates.MAX_CANDIDATES, 3)).astype(np.float32)
    one, other = both(lambda: candidates.best_class(scores, 0.2))
    assert len(one[0]) == candidates.MAX_CANDIDATES
    assert same(one, other)


@pytest.mark.parametrize("bad", [1.01, np.inf])
def test_scores_above_one_are_refused_in_the_same_words(bad: float) -> None:
    xyxy, score, class_id = heap(1, 20)
    score[3] = bad
    outputs = {"boxes": xyxy[None], "scores": score[None], "labels": class_id[None]}

    def work() -> str:
        with pytest.raises(EngineError) as caught:
            open_head(manifest_of()).decode(outputs, [fit(640, 480, SPEC)])
        return str(caught.value)

    one, other = both(work)
    assert one.partition("to")[2] == other.partition("to")[2]


@given(SEEDS, st.integers(0, 40), st.booleans(), st.booleans())
def test_objects_are_written_the_same(seed: int, num: int, has_ids: bool, odd: bool) -> None:
    rng = np.random.default_rng(seed)
    xyxy = (rng.normal(0, 10 ** rng.uniform(-3, 6), (num, 4)).round(rng.integers(0, 3))).astype(np.float32)
    if odd and num:
        xyxy[rng.integers(0, num, 3), rng.integers(0, 4, 3)] = rng.choice(ODD, 3)
    score, class_id = rng.uniform(0, 1, num).astype(np.float32), rng.integers(-2, 5, num).astype(np.int32)
    ids = rng.integers(-(2**62), 2**62, num) if has_ids else None
    encoder = ResultEncoder(["person", "Fußgänger", '"quoted"'])
    one, other = both(lambda: ",".join(encoder._rows(ids, [""] * num, class_id, score, xyxy)))
    assert one == other


FIVE = np.zeros((5, 4), np.float32)


@pytest.mark.parametrize(
    "given",
    [
        (FIVE[:4], np.zeros(5, np.float32), 0.5, np.zeros(5, np.int64)),
        (FIVE, np.zeros(5, np.float32), 0.5, np.zeros(4, np.int64)),
        (FIVE.astype(np.float64), np.zeros(5, np.float32), 0.5, np.zeros(5, np.int64)),
        (FIVE[:, ::-1], np.zeros(5, np.float32), 0.5, np.zeros(5, np.int64)),
        (FIVE, np.zeros(5, np.float32), 0.5, np.broadcast_to(np.int64(0), 5)),
    ],
)
def test_what_is_of_another_size_or_kind_is_refused(given: tuple[Any, ...], compiled: Any) -> None:
    with pytest.raises(ValueError):
        compiled.nms(*given)


NUM_ARGUMENTS = {"nms": 4, "nms_per_class": 5, "place": 10, "listed": 12, "best_class": 6, "objects": 5}


@pytest.mark.parametrize("name", NUM_ARGUMENTS)
def test_every_function_refuses_what_it_does_not_know(name: str) -> None:
    function = getattr(built("_lines" if name == "objects" else "_boxes"), name)
    with pytest.raises(TypeError, match=f"{name} takes"):
        function(1)
    for thing in (None, FIVE, []):
        with pytest.raises((TypeError, ValueError)):
            function(*([thing] * NUM_ARGUMENTS[name]))


def test_the_switch_leaves_the_parts_in_c_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "off")
    assert built("_boxes") is None
    assert _parts_in_c().level == "missing"


def test_doctor_says_whether_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert _parts_in_c().level == "ok"
    monkeypatch.setattr("edge.diagnose.doctor.built", lambda name: None)
    assert "python3-dev" in _parts_in_c().advice
