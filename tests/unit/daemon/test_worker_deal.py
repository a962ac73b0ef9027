"""How many workers there are, what they get, and what needs a single process."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config.load import parse_config
from edge.config.schema import Config
from edge.config.workers import WorkerSettings
from edge.daemon.workers.deal import check_workers, deal, has_spare, least_loaded, places_of
from edge.errors import ConfigError
from edge.pipeline.memory_plan import PROCESS_MB, plan_memory

CAMERA = "synthetic://street?live=1"


def configuration(num_streams: int = 4, engine: str = "ort", source: str = CAMERA, **workers: Any) -> Config:
    streams = [{"name": f"s{number}", "source": source} for number in range(num_streams)]
    return parse_config(
        {"model": {"path": "m.onnx", "engine": engine}, "streams": streams, "workers": workers}, where="x"
    )


@pytest.mark.parametrize(
    ("num_streams", "engine", "num_cores", "num_gpus", "expected"),
    [
        (16, "ort", 64, 0, 0),
        (17, "ort", 4, 0, 0),
        (17, "ort", 8, 0, 2),
        (64, "ort", 8, 0, 2),
        (64, "ort", 64, 0, 4),
        (64, "ort", 64, 8, 4),
        (3, "ort-cuda", 4, 2, 2),
        (64, "trt", 64, 4, 4),
        (64, "trt", 64, 1, 4),
    ],
)
def test_auto_goes_by_cores_streams_and_gpus(
    num_streams: int, engine: str, num_cores: int, num_gpus: int, expected: int
) -> None:
    assert len(places_of(configuration(num_streams, engine), num_cores, num_gpus)) == expected


def test_a_worker_per_gpu_has_a_gpu_each() -> None:
    places = places_of(configuration(8, "trt"), 16, 4)
    assert [place.device for place in places] == [0, 1, 2, 3]


def test_one_is_a_single_process_and_a_list_of_one_is_a_worker() -> None:
    assert places_of(configuration(count=1)) == ()
    assert places_of(configuration(count=3)) == (WorkerSettings(),) * 3
    assert places_of(configuration(count=[{"device": 1, "cores": [2, 3]}])) == (WorkerSettings(device=1, cores=(2, 3)),)


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({"count": 2}, True),
        ({"count": 2, "spare": False}, False),
        ({"count": [{"device": 0}, {"device": 1}]}, False),
        ({"count": [{}]}, True),
    ],
)
def test_a_process_stands_by_where_all_workers_are_alike(workers: dict[str, Any], expected: bool) -> None:
    assert has_spare(configuration(**workers)) is expected


def test_files_need_no_process_that_stands_by() -> None:
    assert not has_spare(configuration(source="film.mp4", count=2))


def test_what_needs_a_single_process_is_refused_and_auto_takes_one() -> None:
    plain = configuration(32)
    streams = (plain.streams[0].model_copy(update={"sinks": ("window:",)}), *plain.streams[1:])
    assert places_of(plain.model_copy(update={"streams": streams}), 64, 0) == ()
    asked = configuration(32, count=2).model_copy(update={"streams": streams})
    with pytest.raises(ConfigError, match="stream 's0' opens a window, which needs a single process"):
        check_workers(asked)


@given(st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=40), st.integers(1, 8))
def test_each_stream_is_dealt_once_and_hands_are_even(models: list[str | None], num_workers: int) -> None:
    tables = [{"name": f"s{number}", "source": CAMERA, "model": model} for number, model in enumerate(models)]
    raw = [{"name": name, "path": "m.onnx"} for name in ("a", "b")]
    streams = parse_config({"models": raw, "streams": tables}, where="x").streams
    hands = deal(streams, num_workers)
    assert sorted(stream.name for hand in hands for stream in hand) == sorted(stream.name for stream in streams)
    assert max(map(len, hands)) - min(map(len, hands)) <= 1
    for model in ("a", "b"):
        of_model = [sum(stream.model == model for stream in hand) for hand in hands]
        assert max(of_model) - min(of_model) <= 1


def test_the_worker_with_the_fewest_streams_takes_the_next() -> None:
    assert least_loaded({1: 3, 2: 2, 3: 2}) == 2


def test_the_memory_plan_counts_every_worker() -> None:
    config = configuration()
    alone, several = plan_memory(config, {}), plan_memory(config, {}, 3)
    assert several.total_mb - alone.total_mb == pytest.approx(3 * PROCESS_MB)


def test_a_model_names_no_gpu_where_its_worker_does() -> None:
    places = configuration(count=[{"device": 0}, {"device": 1}])
    models = tuple(model.model_copy(update={"device": 1}) for model in places.models)
    with pytest.raises(ConfigError, match="model 'model' asks for GPU 1, and every worker has one of its own"):
        check_workers(places.model_copy(update={"models": models}))
