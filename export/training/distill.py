"""Learning from what a trained detector sees inside: its feature maps are imitated, not only its boxes.

Boxes say little per picture; the maps of a network that has seen a hundred thousand pictures say something at every
grid point. Each channel of the teacher's maps is to correlate with a linear mix of the pupil's channels at the same
stride: the loss of PKD (Cao et al. 2022, "Pearson correlation knowledge distillation"), which fits any two detectors,
because scale and offset of a channel do not matter. Shape letters: B batch, C D channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx.utils import Extractor
from torch import Tensor, nn

from edge.addresses.printable import first_line
from edge.engines.ort import RUN_FAILURES
from edge.engines.ort_providers import session_options
from edge.errors import ConfigError, ModelError
from edge.model import find_manifest
from edge.models.onnx_graph import load_onnx
from edge.models.preprocess import Preprocessor
from edge.types import UInt8
from export.config import TeacherSettings
from export.models.detector import STRIDES

EPS = 1e-4
_PROBE_SIDE = 128


class MapTeacher:
    """The part of an ONNX detector up to its feature maps, at any picture size.

    Attributes:
        widths: channels of its maps at the strides 8, 16 and 32; several maps of one stride are stacked.
    """

    def __init__(self, config: TeacherSettings, device: torch.device, threads: int = 0) -> None:
        """Cut the model and try it.

        Args:
            config: which model and which of its tensors.
            device: where the training runs; the teacher runs there too where its provider is installed.
            threads: of the CPU, 0 for all.

        Raises:
            ModelError: the model cannot be read, or does not run at other sizes.
            ConfigError: a tensor is unknown or no feature map, or a stride has none.
        """
        assert config.model is not None
        self._spec = find_manifest(config.model).input
        self._device = device
        self._session = _open(_cut(config, self._spec.layout), device, threads)
        self._preprocessors: dict[tuple[int, ...], Preprocessor] = {}
        self.widths = self._probe(config.tensors)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """What it sees in (B, h, w, 3) uint8 BGR pictures: three maps (B, D, h / stride, w / stride) float32."""
        found = self._run(images.cpu().numpy())
        height = images.shape[1]
        stacked = (
            np.concatenate([value for value in found if value.shape[2] * stride == height], 1) for stride in STRIDES
        )
        # in the memory order of the pupil's maps, or every product with them would walk across memory
        order = torch.channels_last
        return tuple(torch.from_numpy(value).to(self._device).contiguous(memory_format=order) for value in stacked)

    def _run(self, images: UInt8) -> list[np.ndarray]:
        size = images.shape[:3]
        if size not in self._preprocessors:
            spec = self._spec.model_copy(update={"height": size[1], "width": size[2]})
            self._preprocessors[size] = Preprocessor(spec, size[0])
        tensor, _ = self._preprocessors[size].images(list(images))
        found: list[np.ndarray] = self._session.run(None, {self._spec.name: tensor})
        return found

    def _probe(self, names: Sequence[str]) -> tuple[int, ...]:
        """Channels per stride, from a run at a size of its own."""
        try:
            found = self._run(np.zeros((2, _PROBE_SIDE, _PROBE_SIDE * 2, 3), np.uint8))
        except RUN_FAILURES as error:
            first = first_line(error)
            raise ModelError(f"teacher.model does not run on two pictures of another size: {first:.200}") from None
        widths = dict.fromkeys(STRIDES, 0)
        for name, value in zip(names, found, strict=True):
            stride = _PROBE_SIDE // value.shape[2] if value.ndim == 4 and value.shape[2] else 0
            if stride not in widths or value.shape[2:] != (_PROBE_SIDE // stride, 2 * _PROBE_SIDE // stride):
                raise ConfigError(
                    f"teacher.tensors: {name!r} has the shape {value.shape} for pictures of "
                    f"{_PROBE_SIDE * 2}x{_PROBE_SIDE}; expected (batch, channels, height, width) at stride 8, 16 or 32"
                )
            widths[stride] += value.shape[1]
        if missing := [str(stride) for stride, width in widths.items() if not width]:
            raise ConfigError(f"teacher.tensors has no map at stride {' and '.join(missing)}; expected one of each")
        return tuple(widths.values())


class Imitation(nn.Module):
    """How far a pupil's maps are from saying what the teacher's say. Learns the mixes; is not part of the pupil.

    Args:
        channels: of the pupil's maps.
        widths: channels of the teacher's maps.
        weight: of this loss next to the others.
    """

    def __init__(self, channels: int, widths: Sequence[int], weight: float) -> None:
        super().__init__()
        self.mixes = nn.ModuleList(nn.Conv2d(channels, width, 1, bias=False) for width in widths)
        self._weight = weight

    def forward(self, levels: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
        """The weighted sum over the strides of 1 - mean correlation, each in [0, 2].

        Args:
            levels: (B, C, h, w) per stride, the pupil's.
            taught: (B, D, h, w) per stride, the teacher's.
        """
        terms = [
            1 - (_standard(mix(level)) * _standard(target)).mean()
            for mix, level, target in zip(self.mixes, levels, taught, strict=True)
        ]
        return self._weight * torch.stack(terms).sum()


def _standard(x: Tensor) -> Tensor:
    """Each channel with mean 0 and deviation 1 over the batch: batch norm's arithmetic, which is fused."""
    return nn.functional.batch_norm(x.float(), None, None, training=True, eps=EPS)


def _cut(config: TeacherSettings, layout: str) -> onnx.ModelProto:
    """The teacher up to the named tensors, with every size left open."""
    assert config.model is not None
    model = load_onnx(config.model)
    known = {output: output for node in model.graph.node for output in node.output}
    known |= {node.name: node.output[0] for node in model.graph.node if node.name}
    if not config.tensors:
        raise ConfigError("teacher.tensors: expected the names of feature maps at the strides 8, 16 and 32, found none")
    if unknown := [name for name in config.tensors if name not in known]:
        raise ConfigError(
            f"teacher.tensors: {config.model} has no tensor or node {', '.join(map(repr, unknown))}; "
            "a graph viewer such as Netron shows the names"
        )
    part = Extractor(model).extract_model([model.graph.input[0].name], [known[name] for name in config.tensors])
    del part.graph.value_info[:]
    for value in part.graph.output:
        value.type.tensor_type.ClearField("shape")
    sizes = part.graph.input[0].type.tensor_type.shape.dim
    for letter, name in (("n", "batch"), ("h", "height"), ("w", "width")):
        sizes[layout.index(letter)].dim_param = name
    return part


def _open(model: onnx.ModelProto, device: torch.device, threads: int) -> ort.InferenceSession:
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in ort.get_available_providers()]
    return ort.InferenceSession(model.SerializeToString(), session_options(threads), providers=providers)
