"""Calibration caches for the DLA hold one scale per tensor, in the form that TensorRT up to 10 reads."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calib.graph import GraphIndex
from calib.ranges import RangeTable, TensorRange
from edge.errors import DataError
from export.build.calibration_cache import cache_of, cache_text, scale_bits, version_number

CLIPS = {"images": (-1.0, 2.54), "c": (-1.27, 0.5), "probs": (0.0, 0.0)}


def write_model(path: Path) -> GraphIndex:
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["c"], name="stem"),
        helper.make_node("Relu", ["c"], ["probs"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, [1, 2, 1, 1])],
        [numpy_helper.from_array(np.ones((2, 3, 8, 8), np.float32), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return GraphIndex(model)


def table_of(index: GraphIndex, network: str | None = None) -> RangeTable:
    tensors = {
        index.roles[name]: TensorRange(
            shape=(1,), low=low, high=high, clip={"average": (low, high), "minmax": (2 * low, 2 * high)}
        )
        for name, (low, high) in CLIPS.items()
    }
    return RangeTable(
        model="tiny.onnx",
        network_sha256=network or index.fingerprint,
        input_sha256="0",
        frames_sha256="0",
        frames=8,
        frame_ids=(),
        frame_digests=(),
        tensors=tensors,
    )


def scales(text: str) -> dict[str, float]:
    pairs = (line.rsplit(": ", 1) for line in text.splitlines()[1:])
    return {name: struct.unpack(">f", bytes.fromhex(bits))[0] for name, bits in pairs}


def test_the_scale_is_the_largest_magnitude_over_127(tmp_path: Path) -> None:
    index = write_model(tmp_path / "tiny.onnx")
    found = scales(cache_text(table_of(index), index, "10.3.0"))
    assert found == pytest.approx({"images": 0.02, "c": 0.01})


def test_the_method_of_clipping_may_be_chosen(tmp_path: Path) -> None:
    index = write_model(tmp_path / "tiny.onnx")
    assert scales(cache_text(table_of(index), index, "10.3.0", "minmax"))["c"] == pytest.approx(0.02)


def test_bits_are_those_that_nvidia_documents() -> None:
    # relu46 of the table in NVIDIA's forum: 3c92aa10 is 0.0179033577
    assert scale_bits(0.0179033577) == "3c92aa10"


@pytest.mark.parametrize(
    ("version", "number"), [("8.6.1", 8601), ("8.6.2.3", 8602), ("10.3.0", 100300), ("10", 100000)]
)
def test_the_first_line_names_the_release(version: str, number: int) -> None:
    assert version_number(version) == number


def test_ranges_and_model_are_read_from_files(tmp_path: Path) -> None:
    index = write_model(tmp_path / "tiny.onnx")
    table_of(index).save(tmp_path / "ranges.json")
    text = cache_of(tmp_path / "tiny.onnx", tmp_path / "ranges.json", "8.6.1")
    assert text.startswith("TRT-8601-EntropyCalibration2\nimages: ")
    assert text.endswith("\n")


def test_ranges_of_another_network_are_refused(tmp_path: Path) -> None:
    index = write_model(tmp_path / "tiny.onnx")
    with pytest.raises(DataError, match=r"measured on tiny.onnx \(network aaaa…\), this is another network"):
        cache_text(table_of(index, "aaaa"), index, "10.3.0")


def test_a_table_without_the_tensors_of_the_network_is_refused(tmp_path: Path) -> None:
    index = write_model(tmp_path / "tiny.onnx")
    empty = table_of(index).model_copy(update={"tensors": {}})
    with pytest.raises(DataError, match=r"hold none of its tensors; run: edge calibrate"):
        cache_text(empty, index, "10.3.0")
