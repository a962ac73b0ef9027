"""How much each layer alone harms the network's last layers when it is quantized: cheap enough to rank them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import ModelProto

from calib.collect import Step, TensorSource, open_session, with_outputs
from calib.graph import GraphIndex, Layer, attribute_ints
from calib.ranges import RangeTable
from edge.types import Array, Float32

QuantizeOnly = Callable[[frozenset[str]], ModelProto]
# a layer's key and how to measure it → its figure, perhaps remembered from an interrupted run
Remember = Callable[[str, Callable[[], float]], float]
LOUDEST_DB = 200.0


@dataclass(frozen=True, slots=True)
class LayerEffect:
    """What quantizing one layer does.

    Attributes:
        key: of the layer.
        op: operator.
        shape: of its weight.
        snr_db: signal to noise of the network's last layers with only this layer in INT8; low is bad.
        macs: multiplications per frame, what leaving it in float costs.
    """

    key: str
    op: str
    shape: tuple[int, ...]
    snr_db: float
    macs: int


def scan(
    model: ModelProto,
    table: RangeTable,
    quantize_only: QuantizeOnly,
    source: TensorSource,
    *,
    keys: Iterable[str] | None = None,
    threads: int = 1,
    step: Step = lambda: None,
    remember: Remember = lambda key, measure: measure(),
) -> list[LayerEffect]:
    """Quantize one layer at a time and compare the last layers' outputs with those of the float network.

    Args:
        quantize_only: makes the model with only these layers quantized.
        source: a few frames; eight tell the order.
        keys: which layers; None takes all.
        remember: where figures are kept, so that an interrupted scan goes on.

    Returns:
        Effects, worst first.
    """
    index = GraphIndex(model)
    probes = [layer.output for layer in index.layers if layer.key in index.terminal]
    reference: list[list[Array]] = []

    def effect_of(key: str) -> float:
        if not reference:
            reference.extend(outputs_of(model, probes, source, threads))
        return snr_db(reference, outputs_of(quantize_only(frozenset({key})), probes, source, threads))

    wanted = set(keys) if keys is not None else {layer.key for layer in index.layers}
    effects, costs = [], multiplications(index, table)
    for layer in index.layers:
        if layer.key not in wanted:
            continue
        macs = costs[layer.key]
        shape = tuple(index.constants[layer.weight].dims)
        figure = remember(layer.key, partial(effect_of, layer.key))
        effects.append(LayerEffect(layer.key, layer.op, shape, figure, macs))
        step()
    return sorted(effects, key=lambda effect: effect.snr_db)


def outputs_of(model: ModelProto, names: Sequence[str], source: TensorSource, threads: int = 1) -> list[list[Array]]:
    """Values of these tensors, one list per frame."""
    session = open_session(with_outputs(model, names), threads=threads)
    entry = session.get_inputs()[0].name
    return [session.run(list(names), {entry: tensor}) for tensor in source.tensors()]


def snr_db(reference: Sequence[Sequence[Array]], noisy: Sequence[Sequence[Array]]) -> float:
    """Signal to noise in decibels: the mean over tensors of noise energy by signal energy, 200 where equal."""
    shares = []
    for number in range(len(reference[0])):
        signal = noise = 0.0
        for clean, dirty in zip(reference, noisy, strict=True):
            signal += float(np.square(clean[number], dtype=np.float64).sum())
            noise += float(np.square(clean[number].astype(np.float64) - dirty[number]).sum())
        shares.append(noise / max(signal, 1e-30))
    share = float(np.mean(shares))
    if not np.isfinite(share):
        return -LOUDEST_DB
    return min(LOUDEST_DB, -10 * float(np.log10(max(share, 1e-30))))


def multiplications(index: GraphIndex, table: RangeTable) -> dict[str, int]:
    """Layer → its multiplications per frame, as far as the ranges know the shape of its input."""
    found = {}
    for layer in index.layers:
        seen = table.tensors.get(index.roles[layer.source])
        found[layer.key] = layer_macs(index, layer, seen.shape if seen else ())
    return found


def layer_macs(index: GraphIndex, layer: Layer, shape: tuple[int, ...]) -> int:
    """Multiplications of one frame.

    Args:
        shape: of the layer's input, batch first.
    """
    weight: Float32 = index.constant(layer.weight)
    if len(shape) < 4:
        rows = int(np.prod(shape[1:-1])) if layer.op == "MatMul" else 1
        return int(weight.size) * max(rows, 1)
    strides = attribute_ints(index.nodes[layer.index], "strides") or (1, 1)
    pixels = int(np.prod(shape[2:]))
    if layer.op == "ConvTranspose":
        return int(weight.size) * pixels
    return int(weight.size) * pixels // int(np.prod(strides))
