"""Strangers' models, manifests, pictures and data sets give a sentence and take neither terminal nor memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[1]))
from daemon_process import COMMAND
from tiny_models import CLASSES, tiny_model

from edge.errors import DataError, EdgeError, ManifestError, ModelError, SourceError
from edge.models.manifest import manifest_path, parse_manifest
from edge.models.onnx_graph import read_graph
from edge.pictures.planes import PlaneForm, Planes
from edge.sources.images import ImageSource
from edge.sources.isolation.ring import MIN_SLOTS, NUM_SLOTS, RING_BYTES, RingWriter, num_slots_for
from edge.sources.picture import LARGEST_PX, PicturePreparer, PictureSettings
from export.data.image_file import image_size, read_image
from export.data.open_data import open_dataset

ESCAPE = "\x1b[2J\x1b]0;owned\x07"


def edge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *(str(part) for part in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def giant_png(path: Path, width: int, height: int) -> Path:
    """A few bytes that claim to be a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    return path


def external(path: Path, location: str) -> Path:
    """A model whose weights lie in another file, which does not exist or is none of ours."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight]))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../../etc/passwd", "missing.bin"])
def test_weights_in_other_files_are_never_followed_by_an_inspection(location: str, tmp_path: Path) -> None:
    model = external(tmp_path / "m.onnx", location)
    with pytest.raises(ModelError, match=r"its weights (cannot be read|are in missing\.bin)"):
        read_graph(model)
    for command in ("inspect", "lint", "bench"):
        said = edge(command, model)
        assert said.returncode == 1, said.stderr
        assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"schema": 1, "task": ' + "[" * 100_000,
        json.dumps({"schema": 1, "name": "m", "task": "detect", "head": "yolox"}),
    ],
)
def test_a_manifest_that_is_nested_or_huge_is_refused_with_a_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"schema|JSON|input"):
        parse_manifest(text, "m.json")
    model = tiny_model(tmp_path / "m.onnx")
    manifest_path(model).write_text(text)
    assert "Traceback" not in edge("inspect", model).stderr


def test_a_manifest_of_a_billion_pixels_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "m.onnx")
    facts = json.loads(manifest_path(model).read_text())
    facts["input"] |= {"width": 1_000_000_000, "height": 1_000_000_000}
    with pytest.raises(ManifestError, match=r"input\.width"):
        parse_manifest(json.dumps(facts), "m.json")


def test_names_in_a_model_reach_the_terminal_without_markup_and_escapes(tmp_path: Path) -> None:
    names = [f"person{ESCAPE}", "[red]car[/red] [link=http://x]y[/link] [/]"]
    model = tiny_model(tmp_path / "m.onnx", classes=tuple(names))
    said = edge("inspect", model)
    assert said.returncode == 0, said.stderr
    assert "[red]car[/red] [link=http://x]y[/link] [/]" in said.stdout
    refused = edge("check", model.rename(tmp_path / f"x{ESCAPE}.toml"))
    for text in (said.stdout, said.stderr, refused.stdout, refused.stderr):
        assert "\x1b" not in text and "\x07" not in text
    assert parse_manifest(manifest_path(model).read_text(), "m.json").classes[0] == f"person{' [2J ]0;owned '}"
    assert len(CLASSES) == len(names)


def test_a_few_bytes_that_claim_to_be_a_huge_picture_are_a_sentence(tmp_path: Path) -> None:
    giant = giant_png(tmp_path / "giant.png", 60_000, 30_000)
    with pytest.raises(SourceError, match="not a picture that OpenCV can read"):
        ImageSource(giant)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_image(giant)
    assert image_size(giant) == (60_000, 30_000)
    said = edge("run", "--source", giant, "--model", tiny_model(tmp_path / "m.onnx"), "--sink", "jsonl:/dev/null")
    assert said.returncode == 1
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg"])
def test_a_data_set_names_no_pictures_outside_of_itself(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    cv2.imwrite(str(tmp_path / "secret.jpg"), np.zeros((8, 8, 3), np.uint8))
    facts = {
        "images": [{"id": 1, "file_name": name, "width": 8, "height": 8}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "instances.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="lies outside of the data set"):
        open_dataset(f"coco:{folder}/instances.json")


def test_a_nested_data_set_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text('{"images": ' + "[" * 100_000)
    with pytest.raises(EdgeError, match="JSON"):
        open_dataset(f"coco:{tmp_path}/deep.json")


# pictures of cameras: bounded without a memory budget too


def test_a_camera_gets_no_larger_pictures_into_the_pipeline_than_8k_has() -> None:
    image = np.zeros((100, 12_000, 3), np.uint8)
    prepared = PicturePreparer(PictureSettings()).prepare(Planes.of(image))
    assert prepared.size == (LARGEST_PX[0], 64)
    assert prepared.bgr.shape == (64, LARGEST_PX[0], 3)


@pytest.mark.parametrize(
    ("size", "num_slots"), [((1080, 1920), NUM_SLOTS), ((3000, 4000), NUM_SLOTS), ((4320, 7680), MIN_SLOTS)]
)
def test_shared_memory_of_large_pictures_is_bounded(size: tuple[int, int], num_slots: int) -> None:
    form = PlaneForm("bgr", size[1], size[0])
    assert num_slots_for(form) == num_slots
    assert num_slots * form.num_bytes <= RING_BYTES
    assert RingWriter(PlaneForm("bgr", 8, 8)).num_slots == NUM_SLOTS


@pytest.mark.parametrize("later", [False, True])
def test_a_camera_that_claims_huge_pictures_takes_no_memory_for_them(later: bool, tmp_path: Path) -> None:
    """12,000 x 12,000 pixels of black are 2 MB of JPEG and 432 MB as a picture."""
    code = f"""
import sys, cv2, numpy as np
from pathlib import Path
from edge.errors import SourceError
from edge.sources.av import AvSource
giant = cv2.imencode(".jpg", np.zeros((12000, 12000), np.uint8))[1].tobytes()
small = cv2.imencode(".jpg", np.zeros((48, 64), np.uint8))[1].tobytes()
Path(sys.argv[1]).write_bytes((small * 3 if {later} else b"") + giant * 4)
peak = lambda: int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1e3
before = peak()
num = 0
try:
    source = AvSource(sys.argv[1])
    while source.read() is not None: num += 1
except SourceError as error:
    print(error)
print(num, peak() - before)
assert peak() - before < 60
"""
    command = [sys.executable, "-c", code, str(tmp_path / "film.mjpeg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
