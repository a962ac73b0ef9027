"""``ranges.json``: the clip points of every tensor, by five methods, and what they were measured on.

Keyed by role, not by node name, so one table serves the network at any opset; refused for any other network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calib.clipping import METHODS, Method, clip_range
from calib.graph import GraphIndex
from calib.observers import TensorObserver
from edge.errors import DataError, ModelError
from edge.files import atomic_path, write_atomic
from edge.models.manifest import InputSpec, content_hash
from edge.types import Float64

INPUT_SHARE = 0.05


class TensorRange(BaseModel):
    """What was seen of one tensor. ``clip`` holds (low, high) per method, both including 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[int, ...]
    low: float
    high: float
    clip: dict[str, tuple[float, float]]


class RangeTable(BaseModel):
    """A calibration of one network.

    Attributes:
        model: name of the file that was run.
        network_sha256: fingerprint of its weights and wiring; the same at every opset.
        input_sha256: of the manifest's input description, so preprocessing is part of the identity.
        frames_sha256: of the list of frame ids.
        frames: how many.
        frame_ids: which; accuracy is not judged on them.
        frame_digests: hashes of their pixels.
        origin: where the frames came from, for people.
        datasets: fingerprints of the data sets that they were taken from; videos and cameras have none.
        tensors: by role.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_number: Literal[1] = Field(default=1, alias="schema")
    model: str
    network_sha256: str
    input_sha256: str
    frames_sha256: str
    frames: int
    frame_ids: tuple[str, ...]
    frame_digests: tuple[str, ...]
    origin: str = ""
    datasets: tuple[str, ...] = ()
    tensors: dict[str, TensorRange]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1) + "\n"

    def save(self, path: Path) -> None:
        write_atomic(path, self.to_json())

    def is_silent(self, role: str) -> bool:
        """Whether the tensor was measured and is nothing but 0."""
        found = self.tensors.get(role)
        return found is not None and not any(low < 0 or high > 0 for low, high in found.clip.values())

    def clip(self, role: str, method: Method) -> tuple[float, float]:
        """(low, high) of a tensor.

        Raises:
            DataError: the tensor was not measured, or nothing but 0 was seen in it.
        """
        found = self.tensors.get(role)
        if found is None:
            raise DataError(f"the ranges of {self.model} have no tensor {role!r}; run edge calibrate again")
        low, high = found.clip[method]
        if max(-low, high) <= 0:
            raise DataError(
                f"{role}: its range is empty, only 0 was seen in {self.frames} frames; calibrate with others"
            )
        return low, high


def make_table(
    index: GraphIndex,
    observers: dict[str, TensorObserver],
    spec: InputSpec,
    frame_ids: list[str],
    *,
    model: str,
    origin: str = "",
    frame_digests: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> RangeTable:
    """Choose clip points by every method.

    Args:
        observers: by tensor name.
        frame_ids: of the frames that were run.
        frame_digests: of the same frames.
        datasets: fingerprints of where they were taken from.

    Raises:
        ModelError: NaN or infinite values came out of the network.
    """
    tensors = {}
    for name, seen in observers.items():
        if seen.not_finite:
            raise ModelError(
                f"{model}: tensor {name!r} had {seen.not_finite} values that are NaN or infinite; "
                "the float model is broken or its input is prepared wrongly"
            )
        clips: dict[str, tuple[float, float]] = {method: clip_range(seen, method) for method in METHODS}
        tensors[index.roles[name]] = TensorRange(shape=seen.shape, low=seen.low, high=seen.high, clip=clips)
    return RangeTable(
        model=model,
        network_sha256=index.fingerprint,
        input_sha256=content_hash(spec.model_dump(mode="json")),
        frames_sha256=content_hash(frame_ids),
        frames=len(frame_ids),
        frame_ids=tuple(frame_ids),
        frame_digests=tuple(frame_digests),
        origin=origin,
        datasets=tuple(datasets),
        tensors=tensors,
    )


def load_table(path: Path) -> RangeTable:
    """Read ``ranges.json``.

    Raises:
        DataError: missing, no JSON, or not a table of this version.
    """
    try:
        return RangeTable.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it with: edge calibrate MODEL.onnx") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{path}: not a range table, {where}: {first['msg'].lower()}; run edge calibrate again"
        ) from None


def check_table(table: RangeTable, index: GraphIndex, spec: InputSpec, model: str) -> None:
    """Refuse ranges of another network or of another preprocessing.

    Raises:
        DataError: they do not belong together.
    """
    if table.network_sha256 != index.fingerprint:
        raise DataError(
            f"the ranges were measured on {table.model} (network {table.network_sha256[:12]}…), {model} is another "
            f"network ({index.fingerprint[:12]}…); run: edge calibrate {model}"
        )
    if table.input_sha256 != content_hash(spec.model_dump(mode="json")):
        raise DataError(
            f"{model}: its manifest prepares frames differently from when the ranges were measured "
            f"(mean, std, colour, size or resize); run: edge calibrate {model}"
        )
    check_input_range(table, index, spec, model)


def check_input_range(table: RangeTable, index: GraphIndex, spec: InputSpec, model: str) -> None:
    """Compare what entered the network with what its manifest promises.

    Raises:
        DataError: values outside, or only a sliver of the range: frames were prepared for another convention.
    """
    name = index.inputs[0]
    seen = table.tensors.get(index.roles[name])
    if seen is None:
        return
    levels = [((level - mean) / std) for mean, std in zip(spec.mean, spec.std, strict=True) for level in (0, 255)]
    low, high = min(levels), max(levels)
    slack = 0.01 * (high - low)
    if seen.low < low - slack or seen.high > high + slack or seen.high - seen.low < INPUT_SHARE * (high - low):
        raise DataError(
            f"{model}: the manifest promises input values from {low:.3g} to {high:.3g}, the calibration frames had "
            f"{seen.low:.3g} to {seen.high:.3g}; they were prepared for another normalisation"
        )


def save_histograms(observers: dict[str, TensorObserver], roles: dict[str, str], path: Path) -> None:
    """Store the histograms next to the table, to be merged with those of a later run and drawn in reports."""
    arrays: dict[str, Float64] = {}
    for name, seen in observers.items():
        head = [seen.exponent, seen.zeros, seen.low, seen.high, seen.low_sum, seen.high_sum, seen.frames]
        arrays[f"{roles[name]}|bins"] = seen.bins.astype(np.float64)
        arrays[f"{roles[name]}|head"] = np.array([*head, seen.not_finite, *seen.shape], np.float64)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def load_histograms(path: Path) -> dict[str, TensorObserver]:
    """Observers by role.

    Raises:
        DataError: no file of histograms.
    """
    try:
        with np.load(path) as file:
            roles = [name.removesuffix("|bins") for name in file.files if name.endswith("|bins")]
            return {role: _observer(file[f"{role}|head"], file[f"{role}|bins"]) for role in roles}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as histograms ({error}); run edge calibrate again") from None


def _observer(head: Float64, bins: Float64) -> TensorObserver:
    return TensorObserver(
        exponent=int(head[0]),
        bins=bins.astype(np.int64),
        zeros=int(head[1]),
        low=float(head[2]),
        high=float(head[3]),
        low_sum=float(head[4]),
        high_sum=float(head[5]),
        frames=int(head[6]),
        not_finite=int(head[7]),
        shape=tuple(int(size) for size in head[8:]),
    )
