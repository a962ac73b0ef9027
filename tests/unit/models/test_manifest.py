from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.errors import ManifestError
from edge.models.manifest import InputSpec, Manifest, parse_manifest, read_sidecar, write_sidecar

SPEC = InputSpec(name="frames", width=64, height=32, layout="nhwc", dtype="uint8", colour="bgr")
MANIFEST = Manifest(name="m", task="detect", head="edgenet", input=SPEC, classes=("person",))


def test_a_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"model")
    write_sidecar(MANIFEST, model)
    found = read_sidecar(model)
    assert found is not None
    assert found.model_copy(update={"sha256": ""}) == MANIFEST
    assert len(found.sha256) == 64


def test_a_manifest_of_another_file_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"model")
    write_sidecar(MANIFEST, model)
    model.write_bytes(b"another model")
    with pytest.raises(ManifestError, match=r"m\.json describes another m\.onnx .* run: edge inspect"):
        read_sidecar(model)


def test_somebody_elses_card_is_no_manifest(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"model")
    (tmp_path / "m.json").write_text('{"name": "m", "task": "detection"}')
    assert read_sidecar(model) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"accuracy": {"fp32": {"map": float("nan")}}},
            "accuracy.fp32.map: input should be a finite number, found nan",
        ),
        ({"schema": 2}, "expected a manifest with schema 1, found 2"),
        ({"head": "yolo99"}, "head: no head is called 'yolo99'; did you mean 'yolox'?"),
        ({"colour": "bgr"}, "colour: extra inputs are not permitted"),
        ({"thresholds": {"score": 3}}, "thresholds.score: input should be less than or equal to 1"),
        ({"input": SPEC.model_dump() | {"width": 0}}, "input.width: input should be greater than 0"),
        ({"input": SPEC.model_dump() | {"std": [1, 0, 1]}}, "input.std: std may hold no zero"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], expected: str) -> None:
    raw = json.loads(MANIFEST.to_json()) | change
    with pytest.raises(ManifestError) as caught:
        parse_manifest(json.dumps(raw), "m.json")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"schema": "one"}'])
def test_junk_is_no_manifest(text: str) -> None:
    with pytest.raises(ManifestError, match=r"m\.json"):
        parse_manifest(text, "m.json")
