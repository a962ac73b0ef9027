"""Facts of an OpenVINO model (``.xml`` with its ``.bin`` next to it), read from the XML alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from edge.errors import ModelError
from edge.interfaces import TensorInfo
from edge.models.exporter import read_flat_yaml
from edge.models.onnx_graph import End, GraphFacts

_DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8", "i32": "int32", "i64": "int64", "boolean": "bool"}
# what ONNX calls them
_OPERATORS = {
    "SoftMax": "Softmax",
    "FakeQuantize": "QuantizeLinear",
    "TopK": "TopK",
    "NonMaxSuppression": "NonMaxSuppression",
}


def read_ir(path: Path) -> GraphFacts:
    """Read the XML.

    Raises:
        ModelError: it is missing or damaged, no OpenVINO model, or its weights are missing.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ModelError(f"{path.name}: no XML ({error}); expected an OpenVINO model") from None
    layers = root.findall("./layers/layer")
    if root.tag != "net" or not layers:
        raise ModelError(f"{path.name}: an XML file, but no OpenVINO model (no <net> with layers in it)")
    if not path.with_suffix(".bin").is_file():
        raise ModelError(
            f"{path.name}: its weights, {path.with_suffix('.bin').name}, are not next to it; copy both files"
        )
    by_id = {layer.get("id", ""): layer for layer in layers}
    into = {edge.get("to-layer", ""): edge for edge in root.findall("./edges/edge")}
    results = [layer for layer in layers if layer.get("type") == "Result"]
    makers = [_maker(layer, into, by_id) for layer in results]
    outputs = tuple(_output(layer, port) for layer, port in makers)
    kinds = [_OPERATORS.get(layer.get("type", ""), layer.get("type", "")) for layer in layers]
    metadata = path.parent / "metadata.yaml"
    last = tuple(_OPERATORS.get(layer.get("type", ""), layer.get("type", "")) for layer, _ in makers)
    return GraphFacts(
        inputs=tuple(_input(layer) for layer in layers if layer.get("type") == "Parameter"),
        outputs=outputs,
        opset=0,
        metadata=read_flat_yaml(metadata) if metadata.is_file() else {},
        operators=dict(Counter(kind for kind in kinds if kind not in ("Const", "Parameter", "Result")).most_common()),
        num_parameters=sum(_num_values(layer) for layer in layers if layer.get("type") == "Const"),
        weight_bytes={"all": path.with_suffix(".bin").stat().st_size},
        multiply_adds=None,
        last_operators=last,
        ends={tensor.name: End(kind, (), None) for tensor, kind in zip(outputs, last, strict=True)},
    )


def _maker(
    result: ElementTree.Element, into: dict[str, ElementTree.Element], by_id: dict[str, ElementTree.Element]
) -> tuple[ElementTree.Element, str]:
    edge = into[result.get("id", "")]
    return by_id[edge.get("from-layer", "")], edge.get("from-port", "")


def _input(layer: ElementTree.Element) -> TensorInfo:
    data, port = layer.find("data"), layer.find("./output/port")
    shape = tuple(_size(text) for text in (data.get("shape", "") if data is not None else "").split(",") if text)
    kind = data.get("element_type", "") if data is not None else ""
    name = (port.get("names", "") if port is not None else "").split(",")[0] or layer.get("name", "")
    return TensorInfo(name, shape, _DTYPES.get(kind, kind))


def _output(layer: ElementTree.Element, number: str) -> TensorInfo:
    port = next(port for port in layer.findall("./output/port") if port.get("id") == number)
    kind = port.get("precision", "").lower().replace("fp", "f")
    shape = tuple(_size(dim.text or "") for dim in port.findall("dim"))
    return TensorInfo(port.get("names", "").split(",")[0] or layer.get("name", ""), shape, _DTYPES.get(kind, kind))


def _size(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _num_values(layer: ElementTree.Element) -> int:
    data = layer.find("data")
    count = 1
    for text in (data.get("shape", "") if data is not None else "").split(","):
        count *= int(text) if text.strip().isdigit() else 1
    return count
