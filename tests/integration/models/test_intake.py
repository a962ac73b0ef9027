"""Files that people bring: what is no ONNX file, names of classes, free sizes, files next to the model, proofs."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from golden.families import FAMILIES, SIDE, Net
from golden.pictures import picture
from golden.replay import write_replay
from onnx import TensorProto, helper, numpy_helper

from edge.cli import run_command
from edge.errors import EdgeError, ManifestError, ModelError
from edge.files import sha256_of
from edge.model import find_manifest, open_model, prove_file
from edge.models.exporter import read_flat_yaml, read_ultralytics
from edge.models.manifest import InputSpec, Manifest, read_sidecar, write_sidecar
from edge.models.preprocess import Preprocessor, fit, resized
from edge.models.probe import is_proved, probe_pictures
from edge.models.propose import Choices, propose_manifest
from edge.types import Detections

ULTRALYTICS = Path(__file__).parents[2] / "golden" / "ultralytics"


def zipped(path: Path, files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path.read_bytes()


SAFETENSORS = struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}      \0\0\0\0'
FOREIGN = [
    ("yolo11n.pt", {"yolo11n/data.pkl": b"cultralytics.nn.tasks\nDetectionModel"}, "yolo export model=.* format=onnx"),
    ("best.pt", {"best/data.pkl": b"recipe edge.models"}, "edge export .*best.pt --out best.onnx"),
    ("net.pt", {"net/data.pkl": b"ctorch\n", "net/code/x.py": b""}, "TorchScript file; .* torch.onnx.export"),
    ("net.pth", b"\x80\x02}q\x00.", "a PyTorch checkpoint; ours: edge export net.pth"),
    ("m.safetensors", SAFETENSORS, "optimum-cli export onnx"),
    ("m.tflite", b"\x1c\0\0\0TFL3\0\0\0\0", r"tf2onnx.convert --tflite .*m.tflite --output m.onnx"),
    ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "a Keras model"),
    ("m.mlmodel", b"\x08\x01\x12\x02", "a CoreML model"),
    ("m.pb", b"\x0a\x01", "a TensorFlow graph"),
    ("m.pdmodel", b"\x0a\x01", "paddle2onnx"),
    ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer.*git lfs pull"),
    ("m.onnx", b"\n<!DOCTYPE html><html></html>", "is a web page"),
    ("m.onnx", b"ftrt" + bytes(40), "a TensorRT engine; name it m.engine"),
    ("m.onnx", b"7767517\n3 3\n", "an ncnn model"),
    ("m.onnx", b"", "an empty file"),
]


@pytest.mark.parametrize(("name", "content", "expected"), FOREIGN)
def test_what_is_no_onnx_file_is_named_with_the_command_that_helps(
    tmp_path: Path, name: str, content: bytes | dict[str, bytes], expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(zipped(path, content) if isinstance(content, dict) else content)
    with pytest.raises(ModelError, match=expected) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_told_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelError, match=r"is a folder, expected an ONNX file; give the file in it: .*model\.onnx"):
        open_model(tmp_path)


def external(folder: Path) -> Path:
    """A classifier whose weights lie in ``m.onnx.data``."""
    weight = numpy_helper.from_array(np.ones((3, 5), np.float32), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
        helper.make_node("Softmax", ["y"], ["prob"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, [1, 5])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(folder / "m.onnx"), save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    return folder / "m.onnx"


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    model = external(tmp_path)
    assert open_model(model).manifest.head == "classify"
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"m\.onnx: its weights are in m\.onnx\.data, which is not next to it"):
        open_model(model)


def test_the_manifests_hash_covers_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    model = external(tmp_path)
    write_sidecar(find_manifest(model), model)
    before = sha256_of(model)
    data = tmp_path / "m.onnx.data"
    data.write_bytes(bytes(len(data.read_bytes())))
    assert sha256_of(model) != before
    with pytest.raises(ManifestError, match=r"describes another m\.onnx"):
        read_sidecar(model)


def test_a_list_of_classes_of_the_wrong_length_is_an_error(tmp_path: Path) -> None:
    model = FAMILIES["yolov8"].build(tmp_path / "m.onnx")
    names = tmp_path / "one.txt"
    names.write_text("person\n")
    with pytest.raises(
        ManifestError, match=r"--classes has 1 names, the model's output has room for 4 classes; give a"
    ):
        propose_manifest(model, choices=Choices(classes=("person",)))
    assert run_command(["inspect", str(model), "--classes", str(names)]) == 1
    by_hand = find_manifest(model).model_copy(update={"classes": ("person",)})
    with pytest.raises(ManifestError, match="the manifest names 1 classes, the output has room for 4"):
        open_model(model, manifest=by_hand)


def test_classes_are_never_named_by_their_number(tmp_path: Path) -> None:
    model = FAMILIES["yolov8"].build(tmp_path / "m.onnx")
    assert find_manifest(model).classes == ("class 0", "class 1", "class 2", "class 3")


def test_the_proof_is_kept_and_spares_the_next_load_the_pictures(tmp_path: Path) -> None:
    model = FAMILIES["yolox"].build(tmp_path / "m.onnx")
    assert run_command(["inspect", str(model), "--write"]) == 0
    manifest = read_sidecar(model)
    assert manifest is not None
    assert is_proved(manifest)
    assert manifest.decided is not None
    assert manifest.decided[0] == "head yolox: a row for each cell: raw offsets, objectness, classes"
    # whoever changes how it is read has proved nothing
    assert not is_proved(manifest.model_copy(update={"head": "yolov5"}))
    with pytest.raises(ManifestError, match="head 'yolov5' does not read this model, head 'yolox' does"):
        open_model(model, manifest=manifest.model_copy(update={"head": "yolov5"}))


def test_inspect_prints_what_was_decided_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_replay(ULTRALYTICS / "yolov8n_pose.npz", tmp_path / "m.onnx")
    assert run_command(["inspect", str(tmp_path / "m.onnx")]) == 0
    printed = capsys.readouterr().out
    assert "head yolov8-pose: Ultralytics 8.4.190 says task pose" in printed
    assert "classes: the file's metadata" in printed
    assert "probe       passed" in printed


def open_sized(path: Path, first: int = 2) -> Path:
    """A segmenter whose input leaves its axes from ``first`` on open, and whose output its cells."""
    model = onnx.load(str(FAMILIES["segment"].build(path)))
    for name, value, start in (("side", model.graph.input[0], first), ("cells", model.graph.output[0], 2)):
        for dim in list(value.type.tensor_type.shape.dim)[start:]:
            dim.Clear()
            dim.dim_param = name
    del model.graph.value_info[:]
    onnx.save(model, str(path))
    return path


SIDES = {"height": 64, "width": 96}


@pytest.mark.parametrize(
    ("processor", "config", "expected"),
    [
        ({"size": SIDES}, {}, (96, 64)),
        ({"size": {"shortest_edge": 80}, "do_center_crop": True, "crop_size": SIDES}, {}, (96, 64)),
        ({"size": 96}, {}, (96, 96)),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, {"image_size": [64, 96]}, (96, 64)),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}}, {}, (64, 64)),
        ({}, {"image_size": 64}, (64, 64)),
    ],
)  # fmt: skip
def test_the_file_next_to_a_model_tells_the_size_that_it_leaves_open(
    processor: dict[str, object], config: dict[str, object], expected: tuple[int, int], tmp_path: Path
) -> None:
    # as Optimum exports: batch, channels, height and width have names only
    model = open_sized(tmp_path / "m.onnx", first=0)
    levels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer", **config}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**levels, **processor}))
    spec = open_model(model).manifest.input
    assert (spec.width, spec.height) == expected


def test_the_file_of_timm_tells_the_size_that_a_model_leaves_open(tmp_path: Path) -> None:
    model = open_sized(tmp_path / "m.onnx", first=0)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"input_size": [3, 64, 96]}}))
    spec = propose_manifest(model).manifest.input
    assert (spec.width, spec.height) == (96, 64)


def test_a_free_size_is_asked_for_and_taken(tmp_path: Path) -> None:
    path = open_sized(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"leaves the size open, .* edge inspect .* --size WIDTHxHEIGHT --write"):
        propose_manifest(path)
    assert run_command(["inspect", str(path), "--size", "96x64", "--write"]) == 0
    model = open_model(path)
    assert (model.manifest.input.width, model.manifest.input.height) == (96, 64)
    assert len(model.predict([picture()])) == 1
    assert run_command(["inspect", str(path), "--size", "96"]) == 2


def test_files_of_hugging_face_beside_a_model_are_read(tmp_path: Path) -> None:
    model = FAMILIES["classify-logits"].build(tmp_path / "m.onnx")
    labels = {str(index): name for index, name in enumerate("abcde")}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "id2label": labels}))
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, "size": {"height": 64, "width": 64}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    manifest = find_manifest(model)
    assert manifest.classes == tuple("abcde")
    spec = manifest.input
    assert (spec.mean, spec.std, spec.resize, spec.interpolation) == (
        (127.5,) * 3,
        (127.5,) * 3,
        "stretch",
        "antialias-cubic",
    )


def test_the_file_of_timm_beside_a_model_is_read(tmp_path: Path) -> None:
    model = FAMILIES["vector-in-doubt"].build(tmp_path / "m.onnx")
    cfg = {"mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.9, "interpolation": "bicubic"}
    names = [f"n{index}" for index in range(512)]
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": cfg, "label_names": names}))
    manifest = find_manifest(model)
    assert (manifest.head, manifest.classes[511], manifest.input.crop) == ("classify", "n511", 0.9)
    assert (manifest.input.mean[0], manifest.input.std[0], manifest.input.resize) == (127.5, 63.75, "crop")


def test_what_is_assumed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_model(FAMILIES["classify-logits"].build(tmp_path / "m.onnx"))
    assert "nothing says how pictures are prepared for it; assumed what is usual for classify" in caplog.text


def test_an_openvino_model_runs_in_openvino(tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    source = tmp_path / "source.onnx"
    write_replay(ULTRALYTICS / "yolov8n.npz", source)
    ov.save_model(ov.convert_model(str(source)), str(tmp_path / "m.xml"), compress_to_fp16=False)
    (tmp_path / "metadata.yaml").write_text(
        "description: a model\ntask: detect\nbatch: 1\nimgsz:\n- 160\n- 160\nstride: 32\nnames:\n  0: ball\n"
        "  1: helmet\n  2: no helmet\n  3: vest\n  4: cone\n"
    )
    model, onnx_model = open_model(tmp_path / "m.xml", threads=1), open_model(source, engine="ort")
    assert model.engine.name.startswith("openvino")
    assert model.manifest.classes == ("ball", "helmet", "no helmet", "vest", "cone")
    (found,), (expected,) = model.predict([picture()]), onnx_model.predict([picture()])
    assert isinstance(found, Detections) and isinstance(expected, Detections)
    assert len(found) == len(expected) > 0
    before = sha256_of(tmp_path / "m.xml")
    (tmp_path / "m.bin").write_bytes((tmp_path / "m.bin").read_bytes() + b"\0")
    assert sha256_of(tmp_path / "m.xml") != before
    with pytest.raises(EdgeError, match=r"engine 'ort' cannot run m\.xml; OpenVINO models"):
        open_model(tmp_path / "m.xml", engine="ort")
    (tmp_path / "m.bin").unlink()
    with pytest.raises(ModelError, match=r"its weights, m\.bin, are not next to it"):
        open_model(tmp_path / "m.xml")


def test_flat_yaml_of_ultralytics_is_read(tmp_path: Path) -> None:
    file = tmp_path / "metadata.yaml"
    file.write_text(
        "task: detect\nimgsz:\n- 96\n- 192\nnames:\n  0: a cat\n  1: 'it''s'\n  2: \"x\"\nargs:\n  nms: true\n"
    )
    facts = read_ultralytics(read_flat_yaml(file), "m")
    assert facts is not None
    assert (facts.size, facts.names[0], len(facts.names), facts.is_listed) == ((192, 96), "a cat", 3, True)


def test_the_header_of_an_ultralytics_engine_is_its_manifest(tmp_path: Path) -> None:
    facts = {
        "task": "detect",
        "names": {"0": "ball", "1": "cone"},
        "imgsz": [96, 160],
        "stride": 32,
        "version": "8.4.190",
    }
    text = json.dumps(facts | {"args": {"nms": True}}).encode()
    engine = tmp_path / "m.engine"
    engine.write_bytes(struct.pack("<I", len(text)) + text + b"ftrt" + bytes(20) + bytes((10, 13, 3, 9)) + bytes(64))
    manifest = find_manifest(engine)
    assert (manifest.head, manifest.classes, manifest.sha256) == ("end2end", ("ball", "cone"), sha256_of(engine))
    assert (manifest.input.width, manifest.input.height, manifest.input.name) == (160, 96, "images")
    plain = tmp_path / "plain.engine"
    plain.write_bytes(b"ftrt" + bytes(20) + bytes((10, 13, 3, 9)) + bytes(64))
    with pytest.raises(ManifestError, match="no engine with a manifest next to it"):
        find_manifest(plain)


def test_the_middle_of_a_picture_is_cut_out_as_torchvision_does() -> None:
    spec = InputSpec(
        name="x", width=48, height=48, layout="nhwc", dtype="uint8", colour="bgr", resize="crop", crop=0.75
    )
    image = picture(160, 120)
    tensor, (box,) = Preprocessor(spec, 1).images([image])
    whole = cv2.resize(image, (85, 64))
    assert (tensor[0] == whole[8:56, 18:66]).all()
    assert (box.scale_x, box.pad_x, box.pad_y) == (64 / 120, -18, -8)
    corners = np.array([[40, 30, 120, 90]], np.float32)
    assert box.to_frame(box.to_model(corners)) == pytest.approx(corners, abs=1e-3)
    assert fit(48, 48, spec).scale_x == 64 / 48


METHODS = ("nearest", "antialias-lanczos", "antialias", "antialias-cubic", "antialias-box", "antialias-hamming")


@pytest.mark.parametrize("size", [(40, 30), (150, 90), (7, 200)])
@pytest.mark.parametrize("interpolation", METHODS)
def test_pillows_filters_are_pillows(interpolation: Any, size: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    street = probe_pictures()[0]
    expected = np.asarray(image.fromarray(street).resize(size, METHODS.index(interpolation))).astype(int)
    far = np.abs(resized(street, *size, interpolation) - expected)
    # Pillow may go down before it goes across, and of two pixels that are equally near it may take the other
    assert (far > 1).mean() < (0.2 if interpolation == "nearest" else 0.002)


def test_a_picture_may_be_stretched_before_its_middle_is_cut_out() -> None:
    spec = InputSpec.model_validate(
        {"name": "x", "width": 80, "height": 40, "layout": "nhwc", "dtype": "uint8", "colour": "bgr",
         "resize": "stretch-crop", "crop": 0.8}
    )  # fmt: skip
    street = probe_pictures()[0]
    tensor, (box,) = Preprocessor(spec, 1).images([street])
    whole = cv2.resize(street, (100, 50), interpolation=cv2.INTER_LINEAR)
    assert (tensor[0] == whole[5:45, 10:90]).all()
    assert (box.pad_x, box.pad_y) == (-10, -5)


def boxes_for_one(path: Path, *, gives: str) -> Path:
    """A file of YOLOv8's form whose batch is open and whose outputs are made for one picture."""
    FAMILIES["yolov8"].build(path)
    model = onnx.load(str(path))
    graph = model.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    batch.ClearField("dim_value")
    batch.dim_param = "batch"
    if gives == "zeros":
        # as a loop over the batch that an exporter unrolled for one
        graph.node[-1].output[0] = "first"
        graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "axis"))
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
        graph.node.append(helper.make_node("Shape", [graph.input[0].name], ["shape"], end=1))
        graph.node.append(helper.make_node("Sub", ["shape", "one"], ["rest"]))
        graph.node.append(helper.make_node("Shape", ["first"], ["tail"], start=1))
        graph.node.append(helper.make_node("Concat", ["rest", "tail"], ["sizes"], axis=0))
        graph.node.append(helper.make_node("ConstantOfShape", ["sizes"], ["nothing"]))
        graph.node.append(helper.make_node("Concat", ["first", "nothing"], [graph.output[0].name], axis=0))
        for node in graph.node:
            # the rest of the graph sees the first picture
            for place, name in enumerate(node.input):
                if name == graph.input[0].name and node.output[0] != "shape":
                    node.input[place] = "picture"
        graph.node.insert(0, helper.make_node("Slice", [graph.input[0].name, "axis", "one", "axis"], ["picture"]))
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("gives", ["zeros", "error"])
def test_a_file_with_an_open_batch_that_holds_for_one_gets_one_at_a_time(gives: str, tmp_path: Path) -> None:
    path = boxes_for_one(tmp_path / "m.onnx", gives=gives)
    model = open_model(path, engine="ort", score=0.3)
    assert (model.engine.max_batch, model.manifest.max_batch) == (1, 1)
    found = model.predict([probe_pictures()[0]] * 3)
    counts = {len(one) for one in found if isinstance(one, Detections)}
    assert len(found) == 3
    assert len(counts) == 1 and counts != {0}
    assert any("one goes in at a time" in line for line in model.manifest.decided or ())


@pytest.mark.parametrize("interpolation", ["antialias", "antialias-cubic"])
def test_reducing_with_antialias_averages_what_it_leaves_out(interpolation: str) -> None:
    base = {
        "name": "x",
        "width": 8,
        "height": 8,
        "layout": "nhwc",
        "dtype": "uint8",
        "colour": "bgr",
        "resize": "stretch",
    }
    board = np.repeat(((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)[:, :, None], 3, 2)
    tensor, _ = Preprocessor(InputSpec.model_validate(base | {"interpolation": interpolation}), 1).images([board])
    assert np.abs(tensor[0, 2:6, 2:6].astype(int) - 128).max() <= 2


def test_the_probes_pictures_are_shipped() -> None:
    street, noise, gradient = probe_pictures()
    assert street.shape == (270, 480, 3)
    assert noise.shape == gradient.shape == (180, 320, 3)


def test_readings_that_are_both_possible_are_named_with_their_flags(tmp_path: Path) -> None:
    model = FAMILIES["detr-in-doubt"].build(tmp_path / "m.onnx")
    assert run_command(["inspect", str(model)]) == 1
    for activation, count in (("softmax", 6), ("sigmoid", 7)):
        proposal = propose_manifest(model, choices=Choices(head="detr", activation=activation))
        found = prove_file(model, [proposal.manifest], proposal.flags, is_certain=proposal.is_certain)
        assert len(found.classes) == count
        assert open_model(model, manifest=found).predict([picture(SIDE, SIDE)])


def test_a_manifest_by_hand_goes_through_the_same_proof(tmp_path: Path) -> None:
    model = FAMILIES["rfdetr"].build(tmp_path / "m.onnx")
    right = find_manifest(model)
    wrong: Manifest = right.model_copy(
        update={"head": "ssd", "classes": ("a",) * 5, "has_background": True, "output": None}
    )
    with pytest.raises(ManifestError, match="head 'ssd' does not read this model, head 'detr' does"):
        open_model(model, manifest=wrong)


def test_names_of_key_points_come_from_the_file() -> None:
    facts = {"task": "pose", "names": "{0: 'dog'}", "imgsz": "[64, 64]", "kpt_shape": "[2, 3]"}
    named = read_ultralytics({**facts, "kpt_names": "{0: ['nose', 'tail']}"}, "m")
    assert named is not None and named.kpt_names == ("nose", "tail")
    for unfit in ("{0: ['nose']}", "{}", "nonsense"):
        found = read_ultralytics({**facts, "kpt_names": unfit}, "m")
        assert found is not None and found.kpt_names == ()


def test_a_graph_that_goes_in_a_circle_ends_in_one_sentence(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["b"], ["a"]), helper.make_node("Identity", ["a"], ["b"])]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    out = helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 5])
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [image], [out])), str(tmp_path / "m.onnx"))
    with pytest.raises(EdgeError, match=r"m\.onnx"):
        open_model(tmp_path / "m.onnx", engine="ort")


def test_an_operator_that_only_a_plugin_knows_is_named(tmp_path: Path) -> None:
    names = ["num_dets", "det_boxes", "det_scores", "det_classes"]
    node = helper.make_node("EfficientNMS_TRT", ["images"], names, domain="TRT")
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    outs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 9, 4] if "box" in name else [1, 9]) for name in names
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("TRT", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [image], outs), opset_imports=opsets)
    model.ir_version = 8
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(EdgeError, match=r"EfficientNMS_TRT.*a plugin's NMS: export it without them"):
        prove_file(
            tmp_path / "m.onnx", [propose_manifest(tmp_path / "m.onnx").manifest], ["--head triple"], is_certain=True
        )


def test_boxes_of_an_older_rtdetr_of_ultralytics_are_shares(tmp_path: Path) -> None:
    net = Net(31)
    rows = net.rows(net.op("Sigmoid", net.conv(8, 7)), 7)
    facts = {"task": "detect", "head": "RTDETRDecoder", "imgsz": "[64, 64]", "names": "{0: 'a', 1: 'b', 2: 'c'}"}
    net.save(tmp_path / "m.onnx", {"output0": rows}, metadata=facts)
    model = open_model(tmp_path / "m.onnx", engine="ort", score=0.3)
    image = picture(SIDE, SIDE)
    raw = next(iter(model.engine.infer(model.preprocessor.images([image])[0]).values()))[0].copy()
    (found,) = model.predict([image])
    assert isinstance(found, Detections)
    kept = raw[raw[:, 4:].max(1) >= 0.3]
    expected = np.concatenate([kept[:, :2] - kept[:, 2:4] / 2, kept[:, :2] + kept[:, 2:4] / 2], 1).clip(0, 1) * SIDE
    assert len(found) == len(expected) > 0
    order, right = np.lexsort(found.xyxy.T.round(2)), np.lexsort(expected.T.round(2))
    assert found.xyxy[order] == pytest.approx(expected[right], abs=2e-3)


def test_a_file_that_goes_in_a_circle_is_refused(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 3, 8, 8])
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 3, 8, 8])
    nodes = [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Identity", ["b"], ["a"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "circle", [image], [out])), str(tmp_path / "m.onnx"))
    with pytest.raises(EdgeError):
        open_model(tmp_path / "m.onnx", engine="ort")
