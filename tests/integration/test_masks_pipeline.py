"""A model with masks or key points through the pipeline: tiles, tracks, a zone at the foot of the mask, JSONL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.config.load import parse_config
from edge.errors import ConfigError
from edge.model import open_model
from edge.models.manifest import InputSpec, Manifest, Thresholds, write_sidecar
from edge.models.tiles import TileGrid
from edge.pipeline import Pipeline
from edge.types import Detections

SIDE = 64
# model pixels; of a frame of 128x64 its lower half lies in rows 32 to 48
BOX = (8.0, 20.0, 24.0, 44.0)


def constant_model(path: Path, head: str, beside: list[float], maps: np.ndarray | None = None, **facts: Any) -> Path:
    """A network that finds the same object in every picture: rows of an end-to-end export."""
    rows = np.zeros((1, 4, 6 + len(beside)), np.float32)
    rows[0, 0] = (*BOX, 0.9, 0, *beside)
    constants = {"rows": rows, "zero": np.zeros(1, np.float32)}
    outputs = [("output0", [1, *rows.shape[1:]])]
    # the picture must take part, or the graph has no input
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["output0"]),
    ]
    if maps is not None:
        constants["maps"] = maps[None].astype(np.float32)
        nodes.append(helper.make_node("Add", ["maps", "nothing"], ["output1"]))
        outputs.append(("output1", [1, *maps.shape]))
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    spec = InputSpec(name="images", width=SIDE, height=SIDE, layout="nchw", dtype="float32", colour="rgb")
    described = Manifest(
        name=path.stem,
        task="detect",
        head=head,  # type: ignore[arg-type]
        input=spec,
        classes=("person",),
        needs_nms=False,
        thresholds=Thresholds(score=0.5, track_score=0.3),
        **facts,
    )
    write_sidecar(described, path)
    return path


def segmenter(folder: Path) -> Path:
    # the upper half of the box belongs to the object: rows 20 to 32 of the model, 8 to 32 of the frame
    maps = np.full((2, 16, 16), -1.0)
    maps[1, :8] = 1
    return constant_model(folder / "seg.onnx", "end2end-seg", [0.0, 1.0], maps)


def film(folder: Path) -> Path:
    path = folder / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (2 * SIDE, SIDE))
    for level in range(8):
        writer.write(np.full((SIDE, 2 * SIDE, 3), 20 * level, np.uint8))
    writer.release()
    return path


def run(folder: Path, model: Path, **stream: Any) -> list[dict[str, Any]]:
    out = folder / "out.jsonl"
    settings = {"name": "door", "source": str(film(folder)), "sinks": [f"jsonl:{out}"], **stream}
    config = parse_config({"model": {"path": model, "engine": "ort", "threads": 1}, "streams": [settings]}, where="t")
    pipeline = Pipeline(config)
    pipeline.start()
    pipeline.wait(60)
    pipeline.stop()
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_masks_reach_the_lines_and_the_foot_of_the_mask_is_what_counts(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    zone = {"name": "upper", "points_px": [(2, 2), (126, 2), (126, 44), (2, 44)], "settle_s": 0.1}
    inside = run(tmp_path, segmenter(tmp_path), analytics={"zones": [{**zone, "anchor": "mask-foot"}]})
    box = inside[-1]["objects"][0]
    assert box["track_id"] is not None and box["xyxy"] == [16.0, 8.0, 48.0, 56.0]
    mask = coco.decode(box["mask"])
    assert mask.shape == (SIDE, 2 * SIDE)
    assert mask[10:30, 18:46].all() and not mask[35:].any() and not mask[:, :16].any()
    assert [event["kind"] for line in inside for event in line["events"]] == ["zone_entered"]
    # the bottom of the box lies below the zone
    outside = run(tmp_path, segmenter(tmp_path), analytics={"zones": [zone]})
    assert not [event for line in outside for event in line["events"]]


def test_key_points_and_corners_reach_the_lines(tmp_path: Path) -> None:
    pose = constant_model(tmp_path / "pose.onnx", "end2end-pose", [10, 30, 0.9, 20, 40, 0.8], kpt_shape=(2, 3))
    points = run(tmp_path, pose)[-1]["objects"][0]["keypoints"]
    assert points == [[20.0, 28.0, 0.9], [40.0, 48.0, 0.8]]
    turned = run(tmp_path, constant_model(tmp_path / "obb.onnx", "end2end-obb", [0.5]))[-1]["objects"][0]
    assert len(turned["corners"]) == 4


def test_a_key_point_that_the_model_does_not_have_is_refused_at_the_start(tmp_path: Path) -> None:
    line = {"name": "gate", "points_px": [(2, 20), (126, 20)], "anchor": "keypoint:nose"}
    with pytest.raises(ConfigError, match="keypoint:nose"):
        run(tmp_path, segmenter(tmp_path), analytics={"lines": [line]})


def test_masks_of_tiles_lie_where_their_tiles_do(tmp_path: Path) -> None:
    model = open_model(segmenter(tmp_path), engine="ort", threads=1)
    image = np.zeros((120, 400, 3), np.uint8)
    (found,), _ = model.submit([image], [TileGrid(3, 1)]).wait()
    model.close()
    assert isinstance(found, Detections) and found.masks is not None
    assert found.masks.size == (400, 120)
    assert (found.masks.xyxy == found.xyxy).all()
    assert len(found) > 1
