"""What ``edge export --model-repository`` writes is what Triton reads."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from tiny_models import manifest, tiny_model
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from edge.cli import run_command
from edge.errors import UsageError
from edge.models.onnx_graph import read_graph
from edge.models.shipped import FOLDER
from export.build.profiles import DEFAULT_PROFILE, choose_profiles
from export.repository import ServerOptions, write_repository


def config_of(place: Path) -> ModelConfig:
    return text_format.Parse((place / "config.pbtxt").read_text(), ModelConfig())


def test_a_detector_is_described_whole(tmp_path: Path) -> None:
    model = FOLDER / "street-nano.onnx"
    config = config_of(
        write_repository(model, tmp_path, "street", ServerOptions(max_batch=8, instances=2, device="cpu"))
    )
    assert (config.name, config.backend, config.max_batch_size) == ("street", "onnxruntime", 8)
    assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [("frames", 2, [448, 768, 3])]
    outputs = {one.name: list(one.dims) for one in config.output}
    assert outputs == {"boxes": [100, 4], "scores": [100], "labels": [100]}
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, ModelInstanceGroup.KIND_CPU)
    assert list(config.dynamic_batching.preferred_batch_size) == [1, 2, 4, 8]
    warmed = {one.batch_size: list(one.inputs["frames"].dims) for one in config.model_warmup}
    assert warmed == {1: [448, 768, 3], 8: [448, 768, 3]}
    assert (tmp_path / "street" / "1" / "model.onnx").read_bytes() == model.read_bytes()


def test_the_manifest_lies_beside_it(tmp_path: Path) -> None:
    place = write_repository(tiny_model(tmp_path / "tiny.onnx"), tmp_path / "models", "tiny", ServerOptions())
    assert json.loads((place / "tiny.json").read_text())["classes"] == ["person", "car"]


def test_a_model_of_one_batch_has_no_other_there(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.onnx", has_sidecar=False)
    graph = onnx.load(str(model))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, str(model))
    model.with_suffix(".json").write_text(manifest("tiny").to_json())
    config = config_of(write_repository(model, tmp_path / "models", "tiny", ServerOptions()))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [1, 32, 32, 3]
    assert not config.HasField("dynamic_batching")


def test_no_more_pictures_go_in_than_the_manifest_allows(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.onnx", has_sidecar=False)
    allowed = manifest("tiny").model_copy(update={"max_batch": 2})
    model.with_suffix(".json").write_text(allowed.to_json())
    config = config_of(write_repository(model, tmp_path / "models", "tiny", ServerOptions(max_batch=8)))
    assert config.max_batch_size == 2
    assert [(item.min_batch, item.max_batch) for item in choose_profiles(model, read_graph(model), (), most=2)] == [
        (1, 2)
    ]
    with pytest.raises(UsageError, match="takes 2 at once at most"):
        choose_profiles(model, read_graph(model), (DEFAULT_PROFILE,), most=2)


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(tmp_path / "tiny.onnx")
    assert (
        run_command(["export", str(model), "--model-repository", str(tmp_path / "models"), "--backend", "python"]) == 0
    )
    assert f"tritonserver --model-repository={tmp_path}/models" in capsys.readouterr().out
    compile((tmp_path / "models" / "tiny" / "1" / "model.py").read_text(), "model.py", "exec")


@pytest.mark.parametrize("arguments", [[], ["--out", "x.onnx", "--model-repository", "models"]])
def test_one_target_is_expected(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["export", str(tiny_model(tmp_path / "tiny.onnx")), *arguments]) == 2
    assert "--model-repository" in capsys.readouterr().err


def test_a_backend_for_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'tensorrt' does not run tiny\.onnx; expected 'onnxruntime'"):
        write_repository(tiny_model(tmp_path / "tiny.onnx"), tmp_path / "models", "tiny", ServerOptions("tensorrt"))
