"""``edge.track`` and ``Pipeline(on_result=…)``: a loop over results that leaves nothing behind, however it is left."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.models.shipped import FOLDER

SCENE = "synthetic://street?seed=3&size=320x180&frames=40"
LIVE = "synthetic://street?seed=3&size=320x180&live=1&fps=20"
GATE = {"gate": ((0.5, 0.05), (0.5, 0.95))}


def own_threads() -> set[str]:
    names = ("capture", "output", "inference", "engine", "events", "second stage")
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(names)}


def test_every_frame_of_a_file_comes_out_in_order_with_counts_and_a_picture() -> None:
    results = []
    for result in edge.track(SCENE, lines=GATE, engine="ort"):
        results.append((result.frame.seq, len(result.detections), len(result.tracks or ())))
        picture = result.picture()
        assert picture.shape == result.frame.image.shape
        assert not np.shares_memory(picture, result.frame.image)
    assert [seq for seq, _, _ in results] == list(range(40))
    assert sum(tracks for _, _, tracks in results) > 40
    assert set(result.counts["lines"]) == {"gate"}
    assert not own_threads()


def test_several_sources_run_together_and_the_slowest_loop_loses_nothing_of_files() -> None:
    seen: dict[str, list[int]] = {}
    for result in edge.track([SCENE, SCENE.replace("seed=3", "seed=4")], engine="ort"):
        seen.setdefault(result.frame.stream, []).append(result.frame.seq)
        time.sleep(0.002)
    assert [seqs == list(range(40)) for seqs in seen.values()] == [True, True]


@pytest.mark.parametrize("how", ["break", "error", "close"])
def test_leaving_the_loop_closes_everything(how: str) -> None:
    results = edge.track(LIVE, engine="ort")
    if how == "close":
        next(iter(results))
        results.close()  # type: ignore[attr-defined]
    else:
        with pytest.raises(ZeroDivisionError) if how == "error" else pytest.raises(StopIteration):
            for _ in results:
                if how == "error":
                    _ = 1 / 0
                break
            raise StopIteration
        del results
    assert not own_threads()


def test_a_camera_gives_its_newest_results_to_a_loop_that_is_slow() -> None:
    before, seqs, ages_s = time.monotonic(), [], []
    for result in edge.track(LIVE, engine="ort", max_age_ms=60_000):
        seqs.append(result.frame.seq)
        ages_s.append((time.monotonic_ns() - result.frame.captured_ns) / 1e9)
        time.sleep(0.4)
        if len(seqs) == 6 or time.monotonic() - before > 60:
            break
    assert seqs == sorted(set(seqs))
    assert seqs[-1] - seqs[0] > 10, "frames between were left out"


def test_a_camera_that_is_not_there_harms_no_other_and_wrong_arguments_are_said_at_once() -> None:
    for result in edge.track([SCENE, "rtsp://127.0.0.1:9/none"], engine="ort"):
        if result.frame.seq == 39:
            break
    with pytest.raises(edge.ConfigError, match=r"'streams\.0\.max_fsp'; did you mean 'streams\.0\.max_fps'"):
        edge.track(SCENE, max_fsp=3)
    with pytest.raises(edge.ModelError, match=r"nowhere\.onnx"):
        edge.track(SCENE, "nowhere.onnx")


def test_what_the_program_raises_for_a_result_comes_out_of_run(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(
        f'[model]\npath = "{FOLDER}/street-nano-int8.onnx"\nengine = "ort"\n'
        f'[[streams]]\nname = "a"\nsource = "{SCENE}"\n'
    )

    def refuse(result: edge.Result) -> None:
        raise KeyError(result.frame.seq)

    with pytest.raises(KeyError, match="0"):
        edge.Pipeline(edge.load_config(tmp_path / "edge.toml"), on_result=refuse).run()
    assert not own_threads()
    results: list[int] = []
    config = edge.load_config(str(tmp_path / "edge.toml"))
    edge.Pipeline(config, on_result=lambda one: results.append(one.frame.seq)).run()
    assert results == list(range(40))


def test_a_model_answers_one_picture_or_many_and_refuses_what_is_none() -> None:
    image = np.full((180, 320, 3), 90, np.uint8)
    with edge.open_model(f"{FOLDER}/street-nano-int8.onnx", engine="ort", threads=1) as model:
        assert isinstance(model(image), edge.Detections)
        assert len(model([image] * 3)) == 3
        for wrong in (image[:, :, 0], image.astype(np.float32), "street.jpg"):
            with pytest.raises(ValueError, match=r"expected a picture \(H, W, 3\) uint8 BGR"):
                model(wrong)  # type: ignore[arg-type]


def test_a_source_is_a_context_and_an_iterator(tmp_path: Path) -> None:
    with edge.open_source(SCENE.replace("40", "3"), name="door") as source:
        frames = list(source)
    assert [(frame.stream, frame.seq) for frame in frames] == [("door", 0), ("door", 1), ("door", 2)]
    with pytest.raises(edge.SourceError):
        edge.open_source(tmp_path / "nowhere.mp4")
