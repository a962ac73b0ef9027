"""Engines for the DLA: one batch size, and advice that can be followed. TensorRT is tests/fake_tensorrt.py."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.engines.trt.api import TensorRt
from edge.errors import EngineError, UsageError
from edge.models.manifest import InputSpec, Manifest
from export.build.engine import BuildResult, build_engine, parse_batch
from export.build.options import BuildOptions

FAKE = runpy.run_path(str(Path(__file__).parents[1] / "fake_tensorrt.py"))


def build(folder: Path, release: str, options: BuildOptions, *, batch: int | str = "n", half: bool = True) -> Any:
    """Build a network of one convolution with the stand-in of a release; gives what was called, and the result."""
    real, kind = (np.float16, TensorProto.FLOAT16) if half else (np.float32, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "weight"], ["probs"], name="stem.conv")],
        "tiny",
        [helper.make_tensor_value_info("images", kind, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("probs", kind, [batch, 2, 1, 1])],
        [numpy_helper.from_array(np.ones((2, 3, 8, 8), real), "weight")],
    )
    path = folder / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    spec = InputSpec(name="images", width=8, height=8, layout="nchw", dtype=np.dtype(real).name, colour="rgb")
    manifest = Manifest(name="tiny", task="classify", head="classify", input=spec, classes=("a", "b"))
    world = FAKE["World"](release)
    api = TensorRt(world.module, FAKE["flavour_of"](release))
    result = build_engine(path, folder / "out.engine", options, api, manifest=manifest, capability="8.7")
    return world, result


def sizes(result: BuildResult) -> list[tuple[int, int, int]]:
    assert result.manifest.engine is not None
    return [(item.min_batch, item.opt_batch, item.max_batch) for item in result.manifest.engine.profiles]


@pytest.mark.parametrize("release", ["8.6", "10.3", "11.4"])
def test_the_dla_gets_one_batch_size(tmp_path: Path, release: str) -> None:
    world, result = build(tmp_path, release, BuildOptions(dla_core=0))
    assert sizes(result) == [(1, 1, 1)]
    shapes = world.values_of("IOptimizationProfile", "set_shape")[0]
    assert shapes == ("images", (1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8))


def test_the_gpu_still_gets_a_range(tmp_path: Path) -> None:
    assert sizes(build(tmp_path, "10.3", BuildOptions())[1]) == [(1, 4, 16)]


def test_another_single_size_is_taken(tmp_path: Path) -> None:
    options = BuildOptions(dla_core=0, profiles=(parse_batch("4"),))
    assert sizes(build(tmp_path, "10.3", options)[1]) == [(4, 4, 4)]


def test_a_fixed_batch_is_the_graphs_own(tmp_path: Path) -> None:
    assert sizes(build(tmp_path, "10.3", BuildOptions(dla_core=0), batch=2)[1]) == [(2, 2, 2)]


@pytest.mark.parametrize("text", ["1:2:4", "1:1:4", "2:4:4"])
def test_a_range_of_sizes_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=f"--batch {text}: the DLA takes one batch size only; give --batch "):
        build(tmp_path, "10.3", BuildOptions(dla_core=0, profiles=(parse_batch(text),)))
    assert not (tmp_path / "out.engine").exists()


@pytest.mark.parametrize("options", [BuildOptions(dla_core=0), BuildOptions(precision="fp16")])
def test_the_way_to_fp16_is_a_command_that_exists(tmp_path: Path, options: BuildOptions) -> None:
    with pytest.raises(EngineError, match=r"run: edge quantize \S+ --data DATASET --precision fp16"):
        build(tmp_path, "11.4", options, half=False)
