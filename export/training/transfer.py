"""Starting from other weights: matched by name and shape, with a report of what fitted."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge.errors import ModelError
from export.training.checkpoint import read_tensors

# wrappers that other trainers put around a state dict, most trusted first
WRAPPERS = ("ema", "state_dict", "model")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}
PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What was loaded.

    Attributes:
        loaded: names that fitted.
        other_shape: names known here, but of another shape.
        missing: names that the file does not have.
        unused: names that only the file has.
    """

    loaded: tuple[str, ...]
    other_shape: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.loaded)} of {len(self.loaded) + len(self.other_shape) + len(self.missing)} tensors loaded"
        parts = (("other shape", self.other_shape), ("missing", self.missing), ("unused", self.unused))
        for title, names in parts:
            if names:
                text += f"; {title}: {len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        return text


@dataclass(frozen=True, slots=True)
class Weights:
    """What a file holds. Attributes: ``tensors`` by plain name; ``form`` and ``imitation`` of checkpoints of ours."""

    tensors: dict[str, Tensor]
    form: dict[str, Any]
    imitation: dict[str, Tensor]


def read_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, or a torch file of tensors, ours or not.

    Raises:
        ModelError: it is missing, broken, or of another kind.
    """
    content = read_safetensors(path) if path.suffix == ".safetensors" else read_tensors(path)
    return Weights(_state(content), content.get("form") or {}, content.get("imitation") or {})


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a ``.safetensors`` file: a length, a JSON table of places, then the numbers.

    Raises:
        ModelError: it is missing, or no such file.
    """
    try:
        content = path.read_bytes()
        (length,) = struct.unpack_from("<Q", content)
        table = json.loads(content[8 : 8 + length])
        if not 0 < length <= len(content) - 8:
            raise ValueError(length)
        found = {name: _tensor(content, 8 + length, place) for name, place in table.items() if name != "__metadata__"}
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    except (ValueError, struct.error, KeyError, TypeError, AttributeError, RuntimeError):
        raise ModelError(f"{path}: expected a .safetensors file, found another or a broken one") from None
    return found


def _tensor(content: bytes, start: int, place: dict[str, Any]) -> Tensor:
    low, high = place["data_offsets"]
    kind = _DTYPES[place["dtype"]]
    flat = torch.frombuffer(bytearray(content[start + low : start + high]), dtype=kind)
    return flat.reshape(place["shape"]).float() if kind.is_floating_point else flat.reshape(place["shape"])


def transfer_weights(model: nn.Module, path: Path) -> TransferReport:
    """Copy every tensor whose name and shape fit into ``model``.

    Raises:
        ModelError: the file is no file of tensors, or nothing in it fits.
    """
    found = read_weights(path).tensors
    mine = model.state_dict()
    loaded = [name for name, value in mine.items() if name in found and found[name].shape == value.shape]
    other_shape = [name for name in mine if name in found and name not in loaded]
    missing = [name for name in mine if name not in found]
    unused = [name for name in found if name not in mine]
    if not loaded:
        raise ModelError(
            f"{path}: none of its {len(found)} tensors fits this network by name and shape; "
            f"expected names like {next(iter(mine))!r}, found {next(iter(found), 'none')!r}"
        )
    model.load_state_dict({name: found[name] for name in loaded}, strict=False)
    return TransferReport(tuple(loaded), tuple(other_shape), tuple(missing), tuple(unused))


def _state(content: dict[str, object]) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, dict):
            content = inner
            break
    return {_plain(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
