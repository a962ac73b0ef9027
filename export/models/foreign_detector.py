"""A foreign detector as one of ours: its trunk as it was in the file, its head kept (YOLOX) or a fresh one.

Shape letters: B batch, A grid points, C classes, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.models.blocks import Conv
from export.models.detector import Detector, Head, RawBoxes, grid_points, joined
from export.models.foreign import Form, Normalise
from export.models.plan_network import PlanNetwork

# channels of the maps that a fresh head reads, and of its towers
FRESH_NECK, FRESH_TOWER = 64, 48
# sizes are exponentials: e^8 cells are wider than any picture
LARGEST_SIZE = 8.0


class KeptHead(nn.Module):
    """The last layers of a YOLOX head: class rows of the wanted classes; box numbers and objectness in one kernel."""

    def __init__(self, class_width: int, box_width: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Conv2d(class_width, num_classes, 1)
        self.box = nn.Conv2d(box_width, 5, 1)

    def forward(self, class_map: Tensor, box_map: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, C, h, w); box numbers and objectness (B, 5, h, w)."""
        return self.classes(class_map), self.box(box_map)


class ForeignDetector(Detector):
    """A detector whose trunk is that of an ONNX file. Input (B, 3, h, w) float in [0, 1], BGR."""

    def __init__(self, form: Form, num_classes: int) -> None:
        nn.Module.__init__(self)
        self.instances = None
        self.form = form
        self.num_classes = num_classes
        self.normalise = Normalise(form)
        self.takes_pairs = False
        self.trunk = PlanNetwork(form.plan)
        widths = [form.plan.shapes[name][1] for name in form.plan.outputs]
        if form.keeps_head:
            pairs = zip(widths[::2], widths[1::2], strict=True)
            self.heads = nn.ModuleList(KeptHead(*pair, num_classes) for pair in pairs)
        else:
            self.laterals = nn.ModuleList(Conv(width, FRESH_NECK) for width in widths)
            self.heads = nn.ModuleList(Head(FRESH_NECK, FRESH_TOWER, num_classes) for _ in widths)
            for head in self.heads:
                head.start()

    def forward(self, x: Tensor, many: bool = False) -> RawBoxes:
        """Boxes of the kept head, which has many per object; of a fresh one as of our own detectors."""
        maps = self.levels(x)
        if self.form.keeps_head:
            return self.kept(maps)
        return joined([head(level, many) for head, level in zip(self.heads, maps, strict=True)])

    def levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """The trunk's maps: what the heads read."""
        maps: tuple[Tensor, ...] = self.trunk(self.normalise(x))
        if self.form.keeps_head:
            return maps
        return tuple(lateral(level) for lateral, level in zip(self.laterals, maps, strict=True))

    def branches(self, levels: tuple[Tensor, ...]) -> tuple[RawBoxes | None, RawBoxes]:  # type: ignore[override]
        """The one-box branch, None if there is none, and the many-boxes branch."""
        return (None, self.kept(levels)) if self.form.keeps_head else super().branches(levels)

    def kept(self, maps: Sequence[Tensor]) -> RawBoxes:
        """Boxes of the kept head."""
        classes, numbers, centres, strides = self._kept_rows(maps)
        logits = both(classes, numbers[..., 4:])
        return RawBoxes(logits, _boxes(numbers[..., :4], centres, strides[:, None]))

    def best(self, x: Tensor, keep: int, many: bool) -> tuple[Tensor, Tensor, Tensor]:
        """As of our own detectors; a kept head looks at the best class of each grid point only."""
        if not self.form.keeps_head:
            return super().best(x, keep, many)
        classes, numbers, centres, strides = self._kept_rows(self.levels(x))
        logit, label = classes.max(-1)
        doubt = F.softplus(-logit) + F.softplus(-numbers[..., 4])
        top, index = (-doubt).topk(min(keep, doubt.shape[1]), 1)
        rows = numbers.gather(1, index[..., None].expand(-1, -1, 5))[..., :4]
        return _boxes(rows, centres[index], strides[index][..., None]), top.exp(), label.gather(1, index)

    def _kept_rows(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Class logits (B, A, C), box numbers and objectness (B, A, 5), float32; grid points (A, 2), strides (A,)."""
        pairs = zip(maps[::2], maps[1::2], strict=True)
        found = [head(*pair) for head, pair in zip(self.heads, pairs, strict=True)]
        sizes = [(int(box.shape[2]), int(box.shape[3])) for _, box in found]
        classes, numbers = (
            torch.cat([part.flatten(2) for part in kind], 2).transpose(1, 2).float()
            for kind in zip(*found, strict=True)
        )
        return classes, numbers, *grid_points(sizes, numbers.device)

    def fold_input(self) -> None:
        """Take bytes instead of [0, 1] from now on; for export."""
        self.normalise.fold(self.trunk)
        if self.normalise.is_folded and self.is_for_int8:
            self.takes_pairs = self.trunk.pair_pixels()

    @property
    def is_for_int8(self) -> bool:
        """Whether every activation is one that integer kernels do on the way."""
        kinds = {step.settings["act"] for step in self.form.plan.steps if step.op == "conv"}
        return kinds <= {"relu", "relu6", "none"}

    def enter(self, frames: Tensor) -> Tensor:
        """(N, h, w, 3) to (N, 3, h, w), or to (N, 12, h / 2, w / 2) for a first kernel that takes pairs of pixels.

        Integer kernels on three channels are slower than on twelve of a quarter of the places.
        """
        if not self.takes_pairs:
            return super().enter(frames)
        height, width = int(frames.shape[1]), int(frames.shape[2])
        pairs = frames.reshape(-1, height // 2, 2, width // 2, 6).permute(0, 1, 3, 2, 4)
        return pairs.reshape(-1, height // 2, width // 2, 12).permute(0, 3, 1, 2)


def both(classes: Tensor, objectness: Tensor) -> Tensor:
    """The logit of ``sigmoid(classes) * sigmoid(objectness)``: two doubts as one.

    With s = softplus(-c) + softplus(-o) the product is e^-s, so its logit is -s - log(1 - e^-s).
    """
    doubt = F.softplus(-classes) + F.softplus(-objectness)
    return -doubt - torch.log(-torch.expm1(-doubt.clamp(min=1e-6)))


def _boxes(numbers: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """(…, 4) corners in pixels of (…, 4) offsets from a cell's upper left corner and logarithms of sizes, in cells."""
    middle = (numbers[..., :2] - 0.5) * strides + centres
    half = numbers[..., 2:].clamp(max=LARGEST_SIZE).exp() * strides / 2
    return torch.cat([middle - half, middle + half], -1)
