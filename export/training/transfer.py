"""Starting from other weights: matched by name and shape, with a report of what fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from edge.errors import ModelError
from export.training.checkpoint import read_tensors

# wrappers that other trainers put around a state dict, most trusted first
WRAPPERS = ("ema", "state_dict", "model")
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


def transfer_weights(model: nn.Module, path: Path) -> TransferReport:
    """Copy every tensor whose name and shape fit into ``model``.

    Raises:
        ModelError: the file is no torch file of tensors, or nothing in it fits.
    """
    found = _state(read_tensors(path))
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
