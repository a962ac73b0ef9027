"""Two batches in flight through the whole line: the same lines come out, in order, none lost, also across a swap."""

from __future__ import annotations

import json
import runpy
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.config.load import parse_config
from edge.engines.choose import open_engine
from edge.engines.cuda.errors import gpu_error
from edge.interfaces import Engine, TensorInfo
from edge.models.preprocess import Preprocessor
from edge.pipeline import Pipeline
from edge.types import Array, Letterbox, UInt8

TINY = runpy.run_path(str(Path(__file__).parents[1] / "tiny_models.py"))
STREET = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"
WAIT_S = 100.0


class AheadEngine:
    """An engine of the CPU that starts batches ahead as the one for TensorRT does, and computes when it is asked."""

    def __init__(self, inner: Engine, manifest: Any) -> None:
        self.inner = inner
        self._preprocessors = deque(Preprocessor(manifest.input, inner.max_batch) for _ in range(2))
        self._flying: deque[tuple[Array, dict[str, Array] | None]] = deque()
        self.most_in_flight = 0
        self.num_submitted = 0
        self.on_collect: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        return f"ahead of {self.inner.name}"

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        return self.inner.inputs

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        return self.inner.outputs

    @property
    def max_batch(self) -> int:
        return self.inner.max_batch

    @property
    def is_fixed_batch(self) -> bool:
        return self.inner.is_fixed_batch

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        assert not self._flying, "a tensor overtakes the batches in flight"
        return self.inner.infer(tensor)

    def submit_frames(self, images: Sequence[UInt8]) -> list[Letterbox]:
        assert len(self._flying) < 2, "three batches in flight"
        self._preprocessors.rotate()
        tensor, letterboxes = self._preprocessors[0].images(images)
        self._flying.append((tensor, None))
        self.num_submitted += 1
        self.most_in_flight = max(self.most_in_flight, len(self._flying))
        return letterboxes

    def collect(self) -> Mapping[str, Array]:
        tensor, _ = self._flying.popleft()
        self.on_collect()
        return self.inner.infer(tensor)

    def close(self) -> None:
        assert not self._flying, "closed with a batch in flight"
        self.inner.close()


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[AheadEngine]:
    """Every engine that is opened from now on starts batches ahead; they are listed here."""
    opened: list[AheadEngine] = []

    def wrapped(path: Path, manifest: Any, **options: Any) -> AheadEngine:
        opened.append(AheadEngine(open_engine(path, manifest, **options), manifest))
        return opened[-1]

    monkeypatch.setattr("edge.model.open_engine", wrapped)
    return opened


def configuration(folder: Path, model: Path, sources: Sequence[str], **fields: Any) -> Any:
    folder.mkdir(exist_ok=True)
    streams = [
        {"name": name, "source": source, "sinks": [f"jsonl:{folder}/{name}.jsonl"]}
        for name, source in zip("abcd", sources, strict=False)
    ]
    chosen = {"path": str(model), "threads": 1, "max_batch": 2, **fields}
    return parse_config({"model": chosen, "streams": streams}, where="x")


def run(config: Any, folder: Path) -> dict[str, list[dict[str, Any]]]:
    pipeline = Pipeline(config)
    pipeline.start()
    ended = pipeline.wait(WAIT_S)
    assert pipeline.stop() and ended
    assert not pipeline.failures()
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("*.jsonl")}


def without_clock(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in ("captured", "age_ms")} for line in lines]


@pytest.mark.parametrize("num_streams", [1, 3])
def test_batches_started_ahead_give_the_same_lines(
    tmp_path: Path, request: pytest.FixtureRequest, num_streams: int
) -> None:
    sources = [f"synthetic://street?seed={seed}&size=320x180&frames=20&objects=6" for seed in range(num_streams)]
    plain = run(configuration(tmp_path / "plain", STREET, sources), tmp_path / "plain")
    engines: list[AheadEngine] = request.getfixturevalue("ahead")
    flown = run(configuration(tmp_path / "flown", STREET, sources), tmp_path / "flown")
    assert engines[0].most_in_flight == 2
    assert {name: len(lines) for name, lines in flown.items()} == dict.fromkeys("abc"[:num_streams], 20)
    assert {name: without_clock(lines) for name, lines in flown.items()} == {
        name: without_clock(lines) for name, lines in plain.items()
    }


def test_a_single_frame_is_not_held_back_until_the_next_one_comes(tmp_path: Path, ahead: list[AheadEngine]) -> None:
    model = TINY["tiny_model"](tmp_path / "m.onnx")
    lines = run(configuration(tmp_path / "out", model, ["synthetic://street?size=96x64&frames=1"]), tmp_path / "out")
    assert len(lines["a"]) == 1 and ahead[0].num_submitted == 1


def test_a_swap_waits_for_the_batch_in_flight(
    tmp_path: Path, ahead: list[AheadEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.pipeline.swap.swap.FAST_ENOUGH_MS", 10_000)
    good, other = (TINY["tiny_model"](tmp_path / f"{name}.onnx") for name in ("good", "other"))
    sources = [f"synthetic://street?seed={seed}&size=96x64&frames=1000000&objects=1" for seed in range(2)]
    raw = configuration(tmp_path / "out", good, sources)
    config = raw.model_copy(
        update={"swap": raw.swap.model_copy(update={"shadow_frames": 1, "probation_s": 0, "max_slowdown": 1000})}
    )
    pipeline = Pipeline(config)
    pipeline.start()
    for model in (other, good) * 4:
        report = pipeline.swap_model("model", model, has_trial=False)
        assert report.outcome == "kept", report.reason
    assert pipeline.stop() and not pipeline.failures()
    assert len(ahead) == 9 and max(engine.most_in_flight for engine in ahead) == 2
    for name, stream in pipeline.streams.items():
        lines = [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        assert [line["seq"] for line in lines] == list(range(len(lines)))
        counts = stream.metrics.counters.snapshot()
        drops = sum(count for cause, count in counts.items() if cause.startswith("drop_"))
        assert counts["captured"] == counts["emitted"] + drops
        assert stream.num_in_engine == 0


def test_a_sticky_error_ends_inference_at_once_and_readiness_goes_red(tmp_path: Path, ahead: list[AheadEngine]) -> None:
    """Guarantee 13, the part that is inference's: the supervisor sees the failure and starts a new process."""
    model = TINY["tiny_model"](tmp_path / "m.onnx")
    sources = ["synthetic://street?size=96x64&frames=1000000&objects=1&live=1"]
    pipeline = Pipeline(configuration(tmp_path / "out", model, sources))
    pipeline.start()
    (engine,) = ahead
    is_failing = threading.Event()

    def fail() -> None:
        is_failing.set()
        raise gpu_error("the batch failed on the GPU", "an illegal memory access was encountered")

    engine.on_collect = fail
    assert is_failing.wait(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while pipeline.not_ready() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert pipeline.not_ready() == "inference is not running"
    engine._flying.clear()
    pipeline.stop()
    (failure,) = pipeline.failures()
    assert getattr(failure, "is_sticky", False)
    assert "the process must be started again" in str(failure)
