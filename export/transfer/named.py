"""Backbones by name, from timm and torchvision where they are installed: read as ONNX files are, weights from a file.

The library is needed to start a training only: the checkpoint holds the plan.
"""

from __future__ import annotations

import difflib
import importlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from edge.addresses.printable import first_line
from edge.errors import ConfigError, MissingError, ModelError
from edge.files import sha256_of
from edge.models.manifest import InputSpec, Manifest, Provenance, write_sidecar
from export.models.blocks import GREY_LEVELS
from export.training.transfer import read_weights

LIBRARIES = ("timm", "torchvision")
OPSET = 17
# what torchvision's weights were trained with, as shares of 255; timm says it of each network
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Named:
    """A classifier of a library. Attributes: ``network`` in evaluation mode; ``mean`` and ``std`` as shares of 255."""

    name: str
    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


@contextmanager
def named_backbone(name: str, weights: Path | None, size: tuple[int, int], seed: int) -> Iterator[Path]:
    """A backbone as an ONNX file with its manifest, as long as the context lasts.

    Args:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        weights: a ``.pth``, ``.pt`` or ``.safetensors`` file of this network; None for random ones.
        size: height and width of the picture in pixels.
        seed: of random weights.

    Raises:
        ConfigError: no such library or network.
        MissingError: the library is not installed, or does not load.
        ModelError: the weights do not fit, or the network cannot be written as ONNX.
    """
    torch.manual_seed(seed)
    found = _made(name)
    if weights is not None:
        load(found.network, weights, name)
    with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
        path = Path(folder) / f"{name.partition(':')[2].replace('/', '-')}.onnx"
        _write(found, path, size)
        write_sidecar(_manifest(found, weights, size), path)
        yield path


def load(network: nn.Module, weights: Path, name: str) -> None:
    """Fill a network from a file, by name; by order where another port of it calls every tensor differently.

    A last layer for other classes may be missing or of another size: it is not used.

    Raises:
        ModelError: the file is no file of tensors, or not of this network.
    """
    tensors, own = read_weights(weights).tensors, network.state_dict()
    if not set(tensors) & set(own) and [x.shape for x in tensors.values()] == [x.shape for x in own.values()]:
        tensors = dict(zip(own, tensors.values(), strict=True))
    last = _last_layer(network)
    # a counter of steps changes nothing, and older files lack it
    wanted = [key for key in own if not key.startswith(last) and not key.endswith("num_batches_tracked")]
    wrong = [key for key in wanted if key not in tensors or tensors[key].shape != own[key].shape]
    if wrong:
        raise ModelError(
            f"{weights}: expected the weights of {name}, but {len(wrong)} of its {len(wanted)} tensors are missing or "
            f"of another shape, {wrong[0]} first; the file has {next(iter(tensors), 'none')}, …"
        )
    fitting: dict[str, Tensor] = {key: value for key, value in tensors.items() if key in own}
    network.load_state_dict(
        {key: value for key, value in fitting.items() if value.shape == own[key].shape}, strict=False
    )


def _last_layer(network: nn.Module) -> str:
    """The name of the layer that makes the classes."""
    names: list[str] = [name for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    return names[-1]


def _made(name: str) -> Named:
    library, _, short = name.partition(":")
    if library not in LIBRARIES or not short:
        raise ConfigError(f"transfer.backbone: expected timm:NAME or torchvision:NAME, found {name!r}")
    module = _library(library)
    known: list[str] = module.list_models() if library == "timm" else module.models.list_models()
    # timm puts the name of a training behind a dot; it is the weights' name, and they come from a file
    short = short.partition(".")[0] if library == "timm" else short
    if short not in known:
        near = difflib.get_close_matches(short, known, n=1)
        raise ConfigError(
            f"transfer.backbone: {library} has no network {short!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    if library == "timm":
        network = module.create_model(short, pretrained=False)
        about: dict[str, Any] = network.pretrained_cfg
        return Named(name, network.eval(), tuple(about["mean"]), tuple(about["std"]))
    return Named(name, module.models.get_model(short, weights=None).eval(), MEAN, STD)


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        raise MissingError(f"transfer.backbone: {missing} is not installed; run: pip install {missing}") from None
    except (RuntimeError, ImportError, AttributeError) as error:
        raise MissingError(
            f"transfer.backbone: {name} does not load ({first_line(error)}); install the torchvision that belongs to "
            f"torch {torch.__version__}, from the same index"
        ) from None


def _write(found: Named, path: Path, size: tuple[int, int]) -> None:
    try:
        with warnings.catch_warnings():
            # the tracer warns of what is fixed by the picture's size, which is fixed here
            warnings.simplefilter("ignore")
            torch.onnx.export(
                found.network,
                (torch.zeros(1, 3, *size),),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
            )
    except (RuntimeError, AssertionError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise ModelError(f"transfer.backbone: {found.name} cannot be written as ONNX: {first_line(error)}") from None


def _manifest(found: Named, weights: Path | None, size: tuple[int, int]) -> Manifest:
    mean, std = (tuple(value * GREY_LEVELS for value in values) for values in (found.mean, found.std))
    spec = {"name": "images", "width": size[1], "height": size[0], "layout": "nchw", "dtype": "float32"}
    start = f"weights of {weights.name} (sha256 {sha256_of(weights)})" if weights else "random weights"
    return Manifest(
        name=found.name,
        task="classify",
        head="classify",
        input=InputSpec.model_validate({**spec, "colour": "rgb", "mean": mean, "std": std}),
        classes=(),
        provenance=Provenance(source=f"{found.name}, {start}"),
    )
