"""The second stage and looks in the whole line, on the built-in street with the shipped detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import COLOURS, colour_classifier, colour_embedder

from edge.config.load import parse_config
from edge.models.shipped import demo_model
from edge.pipeline import Pipeline

STREET = "synthetic://street?seed=5&size=640x360&fps=15&objects=10"


def run(folder: Path, name: str, source: str, **stream: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The JSONL lines of a stream, and what its stream counted."""
    models = [{"name": "street", "path": demo_model(), "threads": 1}]
    models += [{"name": path.stem, "path": path} for path in sorted(folder.glob("*.onnx"))]
    out = folder / f"{name}.jsonl"
    raw = {"models": models, "streams": [{"name": "door", "source": source, "sinks": [f"jsonl:{out}"], **stream}]}
    pipeline = Pipeline(parse_config(raw, where="test"))
    pipeline.start()
    try:
        assert pipeline.wait(120), "it has not ended"
    finally:
        assert pipeline.stop()
    assert not pipeline.failures()
    return [json.loads(line) for line in out.read_text().splitlines()], pipeline.streams["door"].stats()


def labelled(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [thing for line in lines for thing in line["objects"] if "labels" in thing]


def without_age(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in ("age_ms", "captured")} for line in lines]


def test_every_run_of_a_file_gives_the_same_labels(tmp_path: Path) -> None:
    colour_classifier(tmp_path / "colour.onnx")
    chosen = {"model": "colour", "min_box_px": 16, "min_score": 0}
    first, stats = run(tmp_path, "first", f"{STREET}&frames=40", second_stage=chosen)
    second, _ = run(tmp_path, "second", f"{STREET}&frames=40", second_stage=chosen)
    found = labelled(first)
    assert len(first) == 40 and len(found) > 40
    assert {label["class"] for thing in found for label in thing["labels"]} <= set(COLOURS)
    assert all(thing["track_id"] is not None for thing in found)
    assert without_age(first) == without_age(second)
    assert stats["stages"]["second_stage"]


def test_a_camera_goes_on_while_a_slow_classifier_thinks(tmp_path: Path) -> None:
    colour_classifier(tmp_path / "colour.onnx", num_products=20)
    chosen = {"model": "colour", "min_box_px": 16, "min_score": 0}
    lines, _ = run(tmp_path, "live", f"{STREET}&frames=90&live=1", second_stage=chosen, max_age_ms=5000)
    first_seen = next(k for k, line in enumerate(lines) if line["objects"])
    first_label = next((k for k, line in enumerate(lines) if labelled([line])), len(lines))
    assert first_label >= first_seen + 2, "frames came out between the question and its answer"


def test_looks_change_no_id_where_nothing_is_in_doubt(tmp_path: Path) -> None:
    colour_embedder(tmp_path / "looks.onnx")
    lines, _ = run(tmp_path, "looks", f"{STREET}&frames=40", track={"appearance_model": "looks"})
    plain, _ = run(tmp_path, "plain", f"{STREET}&frames=40")
    ids, plain_ids = ({thing["track_id"] for line in found for thing in line["objects"]} for found in (lines, plain))
    assert len(ids) <= len(plain_ids) + 1


@pytest.mark.parametrize("method", ["edge", "bytetrack"])
@pytest.mark.parametrize("measured", ["auto", "pictures"])
def test_camera_motion_by_pictures_leaves_a_still_camera_alone(tmp_path: Path, method: str, measured: str) -> None:
    source = f"{STREET}&frames=30"
    moved, _ = run(tmp_path, "moved", source, track={"method": method, "camera_motion": measured})
    plain, _ = run(tmp_path, "plain", source, track={"method": method, "camera_motion": "boxes"})
    assert without_age(moved) == without_age(plain)
