"""Class names that are more or fewer than the model gives are refused: ids would get wrong names."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.commands.inspect import inspect
from edge.errors import ManifestError
from edge.interfaces import TensorInfo
from edge.model import find_manifest, open_model
from edge.models.propose import num_classes


@pytest.mark.parametrize(
    ("head", "shape", "count"),
    [
        ("yolox", (1, 3549, 85), 80),
        ("yolov5", (1, 25200, 85), 80),
        ("yolov8", (1, 84, 8400), 80),
        ("classify", (None, 1000), 1000),
        ("yolox", (1, None, None), 0),
    ],
)
def test_the_output_tells_how_many_classes_there_are(head: str, shape: tuple[int | None, ...], count: int) -> None:
    assert num_classes([TensorInfo("o", shape, "float32")], head) == count  # type: ignore[arg-type]


def test_a_list_of_another_length_is_refused(shared_data: Path, tmp_path: Path) -> None:
    model = shared_data / "models" / "yolox_nano_416.onnx"
    names = tmp_path / "two.txt"
    names.write_text("person\ncar\n")
    with pytest.raises(ManifestError, match=r"two\.txt has 2 names, the model's output has room for 80 classes"):
        inspect(model, classes=names, to=tmp_path / "m.json")
    manifest = find_manifest(model).model_copy(update={"classes": ("person", "car")})
    with pytest.raises(ManifestError, match="names 2 classes, the output has room for 80"):
        open_model(model, manifest=manifest)
