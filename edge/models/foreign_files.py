"""What a model file is when it is no ONNX file, told by its first bytes, and the command that makes one of it."""

from __future__ import annotations

import zipfile
from pathlib import Path

HEAD_BYTES = 4096
CHECKPOINTS = (".pt", ".pth", ".ckpt")
_TF2ONNX = "run: python -m tf2onnx.convert"


def foreign_file(path: Path) -> str | None:
    """One sentence about a file that is something else than ONNX; None where nothing speaks against it.

    Args:
        path: a file, or a folder.
    """
    if path.is_dir():
        return _folder(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    what = _by_bytes(path, head) or _by_suffix(path)
    return f"{path.name} is {what}" if what else None


def _folder(path: Path) -> str:
    if path.suffix == ".mlpackage":
        return f"{path.name} is {_coreml()}"
    if (path / "saved_model.pb").is_file():
        out = path.with_suffix(".onnx").name
        return f"{path.name} is a TensorFlow SavedModel; {_TF2ONNX} --saved-model {path} --output {out}"
    files = sorted([*path.glob("*.onnx"), *path.glob("*.xml")])
    hint = f"; give the file in it: {files[0]}" if files else ""
    return f"{path} is a folder, expected an ONNX file{hint}"


def _by_bytes(path: Path, head: bytes) -> str | None:
    if not head:
        return "an empty file (no nodes in it); copy it again"
    return _text(path, head) or _archive(path, head) or _binary(path, head)


def _text(path: Path, head: bytes) -> str | None:
    text = head.lstrip()[:64].lower()
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the model; run: git lfs pull"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not the model: the download got the page about the file; download the file itself"
    if text.startswith(b"<?xml") and b"<net" in head:
        return f"an OpenVINO model; give it as {path.with_suffix('.xml').name}, with its .bin next to it"
    if head.startswith(b"7767517"):
        return "an ncnn model; export the network that it came from to ONNX"
    return None


def _archive(path: Path, head: bytes) -> str | None:
    if head[:4] == b"PK\x03\x04":
        return _zip(path)
    if head[:2] in (b"\x80\x02", b"\x80\x04"):
        return _checkpoint(path)
    return None


def _binary(path: Path, head: bytes) -> str | None:
    if head[4:8] == b"TFL3":
        onnx = path.with_suffix(".onnx").name
        return f"a TensorFlow Lite model; {_TF2ONNX} --tflite {path} --output {onnx}"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return f"a Keras model (HDF5); save it as a SavedModel in TensorFlow, then {_TF2ONNX} --saved-model FOLDER"
    if head[:4] in (b"ftrt", b"vtrt") or (head[4:5] == b"{" and (b"ftrt" in head or b"vtrt" in head)):
        return f"a TensorRT engine; name it {path.with_suffix('.engine').name}"
    if head[8:9] == b"{" and b"dtype" in head and int.from_bytes(head[:8], "little") < 1 << 30:
        return f"a safetensors file, weights without a network; run: optimum-cli export onnx --model {path.parent} OUT"
    return None


def _by_suffix(path: Path) -> str | None:
    match path.suffix.lower():
        case suffix if suffix in CHECKPOINTS:
            return _checkpoint(path)
        case ".pdmodel" | ".pdiparams":
            return f"a PaddlePaddle model; run: paddle2onnx --model_dir {path.parent} --save_file model.onnx"
        case ".mlmodel":
            return _coreml()
        case ".pb":
            return f"a TensorFlow graph; {_TF2ONNX} --graphdef {path} --output {path.with_suffix('.onnx').name}"
        case ".bin" if path.with_suffix(".xml").is_file():
            return f"the weights of an OpenVINO model; give {path.with_suffix('.xml')}"
        case ".data" if path.with_suffix("").is_file():
            return f"the weights of an ONNX model; give {path.with_suffix('')}"
    return None


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickle = next((name for name in names if name.endswith("data.pkl")), None)
            content = archive.read(pickle)[: 1 << 22] if pickle else b""
    except (zipfile.BadZipFile, OSError):
        return _checkpoint(path) if path.suffix in CHECKPOINTS else "a damaged archive; copy it again"
    if any(name.endswith(".keras") or name == "config.json" for name in names) and not pickle:
        return f"a Keras model; save it as a SavedModel in TensorFlow, then {_TF2ONNX} --saved-model FOLDER"
    if pickle is None:
        return f"a zip archive; unpack it: unzip {path}"
    if b"ultralytics" in content:
        return f"an Ultralytics checkpoint; run: yolo export model={path} format=onnx"
    if b"recipe" in content and b"edge" in content:
        return f"a checkpoint of edge train; run: edge export {path} --out {path.with_suffix('.onnx').name}"
    kind = "TorchScript" if any("/code/" in name for name in names) else "PyTorch"
    return f"a {kind} file; export it to ONNX where it was made: {_torch_export()}"


def _checkpoint(path: Path) -> str:
    return (
        f"a PyTorch checkpoint; ours: edge export {path.name} --out {path.stem}.onnx; Ultralytics': yolo export "
        f"model={path.name} format=onnx; others: {_torch_export()}"
    )


def _torch_export() -> str:
    return "torch.onnx.export(network.eval(), example, 'model.onnx')"


def _coreml() -> str:
    return "a CoreML model, which nothing turns back; export the network that it came from to ONNX"
