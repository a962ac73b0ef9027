"""One way through a model: any number of pictures, whole or in tiles, on engines that overlap batches or do not."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from edge.config.load import parse_config
from edge.errors import EngineError
from edge.heads.choose import open_head
from edge.heads.listed import TripleHead
from edge.interfaces import TensorInfo
from edge.metrics.stages import STAGES
from edge.model import Model
from edge.models.checks import check_outputs
from edge.models.manifest import Manifest
from edge.models.preprocess import Preprocessor
from edge.models.tiles import TileGrid
from edge.pipeline.stream import LOSSLESS_CAPACITY, Stream
from edge.types import Array, Classification, Detections, Letterbox, UInt8

MANIFEST = Manifest.model_validate(
    {
        "schema": 1,
        "name": "level",
        "task": "detect",
        "head": "edgenet",
        "input": {"name": "frames", "width": 32, "height": 32, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"},
        "classes": ["thing"],
    }
)


def outputs_for(tensor: Array) -> dict[str, Array]:
    """One box per picture, its score the picture's level: tells which picture an answer belongs to."""
    count = len(tensor)
    boxes = np.tile(np.array([[8, 8, 24, 24]], np.float32), (count, 1, 1))
    scores = tensor[:, 16, 16, 0].astype(np.float32).reshape(count, 1) / 255
    return {"boxes": boxes, "scores": scores, "labels": np.zeros((count, 1), np.int32)}


class PlainEngine:
    """Answers at once."""

    name = "plain"
    inputs = (TensorInfo("frames", (None, 32, 32, 3), "uint8"),)
    outputs: Sequence[TensorInfo] = ()
    is_fixed_batch = False

    def __init__(self, max_batch: int) -> None:
        self.max_batch = max_batch
        self.rows: list[int] = []

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        self.rows.append(len(tensor))
        return outputs_for(tensor)

    def close(self) -> None:
        pass


class OverlappingEngine(PlainEngine):
    """Takes a second batch while one is under way, and refuses a third, as the protocol says."""

    def __init__(self, max_batch: int) -> None:
        super().__init__(max_batch)
        self.most = 0
        self._under_way: deque[Array] = deque()

    def submit_frames(self, images: Sequence[UInt8]) -> list[Letterbox]:
        assert len(self._under_way) < 2, "a third batch"
        tensor, letterboxes = Preprocessor(MANIFEST.input, self.max_batch).images(images)
        self._under_way.append(tensor.copy())
        self.most = max(self.most, len(self._under_way))
        return letterboxes

    def collect(self) -> Mapping[str, Array]:
        return self.infer(self._under_way.popleft())


def level(value: int, size: int = 32) -> UInt8:
    return np.full((size, size, 3), value, np.uint8)


def levels(model: Model, values: Sequence[int]) -> list[int]:
    found = model.predict([level(value) for value in values])
    return [round(float(one.score[0]) * 255) for one in found if isinstance(one, Detections)]


def made(engine: PlainEngine) -> Model:
    return Model(MANIFEST, engine, TripleHead(MANIFEST))


@pytest.mark.parametrize("kind", [PlainEngine, OverlappingEngine])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 11])
def test_any_number_of_pictures_is_answered_in_order(kind: type[PlainEngine], count: int) -> None:
    values = [100 + 10 * number for number in range(count)]
    assert levels(made(kind(max_batch=3)), values) == values


def test_batches_overlap_where_the_engine_can_and_answers_find_their_batch() -> None:
    engine = OverlappingEngine(max_batch=2)
    model = made(engine)
    first, second = model.submit([level(100)]), model.submit([level(200), level(220), level(240)])
    # the second needed room: the first was collected meanwhile, and still answers for itself
    answers = [[round(float(one.score[0]) * 255) for one in batch.wait()[0]] for batch in (second, first)]  # type: ignore[union-attr]
    assert answers == [[200, 220, 240], [100]]
    assert engine.most == 2


@pytest.mark.parametrize("kind", [PlainEngine, OverlappingEngine])
def test_tiles_are_merged_into_one_answer_per_picture(kind: type[PlainEngine]) -> None:
    engine = kind(max_batch=4)
    batch = made(engine).submit([level(150, 64), level(180)], [TileGrid(2, 1), None])
    found, stage_ns = batch.wait()
    assert sum(engine.rows) == 4
    assert [round(float(one.score.max()) * 255) for one in found if isinstance(one, Detections)] == [150, 180]
    assert set(stage_ns) <= set(STAGES)


@pytest.mark.parametrize("kind", [PlainEngine, OverlappingEngine])
def test_a_check_sees_every_output_and_its_refusal_comes_out(kind: type[PlainEngine]) -> None:
    class Broken(kind):  # type: ignore[misc, valid-type]
        def infer(self, tensor: Array) -> Mapping[str, Array]:
            return {**outputs_for(tensor), "scores": np.full((len(tensor), 1), np.nan, np.float32)}

    with pytest.raises(EngineError, match="output 'scores' is not finite"):
        made(Broken(max_batch=2)).predict([level(9)] * 3, check_outputs)


def test_the_background_of_a_classifier_is_no_class_of_its_answer() -> None:
    facts = MANIFEST.model_dump(by_alias=True) | {"task": "classify", "head": "classify", "has_background": True}
    head = open_head(Manifest.model_validate(facts | {"classes": ["cat", "dog"]}))
    box = Preprocessor(MANIFEST.input, 1).images([level(0)])[1]
    (found,) = head.decode({"probs": np.array([[0.7, 0.1, 0.2]], np.float32)}, box)
    assert isinstance(found, Classification)
    assert found.score.tolist() == pytest.approx([0.1, 0.2])


def test_a_stream_that_loses_nothing_has_room_for_what_is_in_the_engine_too() -> None:
    config = parse_config({"model": {"path": "m.onnx"}, "streams": [{"name": "a", "source": "film.mp4"}]}, where="test")
    stream = Stream(config.streams[0], "model", MANIFEST, None)  # type: ignore[arg-type]
    assert stream.has_room
    stream.num_in_engine = LOSSLESS_CAPACITY
    assert not stream.has_room
