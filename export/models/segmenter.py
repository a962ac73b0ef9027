"""The real-time semantic segmenter: a detail branch for borders, a context branch for meaning.

Shape letters: B batch, C classes, h w pixels of the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.models.backbone import PLANS, Backbone, Size
from export.models.blocks import Conv, CspBlock, GlobalPool, PictureNetwork, RepConv, initialise


@dataclass(frozen=True, slots=True)
class RawClasses:
    """What the segmenter says while training.

    Attributes:
        logits: (B, C, h / 4, w / 4).
        coarse: (B, C, h / 16, w / 16), the context branch's own guess.
        border: (B, 1, h / 8, w / 8), logit of a border between classes.
    """

    logits: Tensor
    coarse: Tensor
    border: Tensor


class Segmenter(PictureNetwork):
    """Two branches, as in BiSeNet (Yu et al. 2018), that share their first layers, as in STDC-Seg (Fan et al. 2021).

    The detail branch stays at stride 8 and learns borders by a head of its own (PIDNet, Xu et al. 2023); the context
    branch goes to stride 32, pools, and comes back. Sums would mix differently scaled INT8 tensors, so branches are
    concatenated. The output is refined at stride 4 with the backbone's earliest map.

    Input (B, 3, h, w) float in [0, 1], BGR, h and w multiples of 32.
    """

    def __init__(self, size: Size, num_classes: int) -> None:
        super().__init__()
        plan = PLANS[size]
        self.num_classes = num_classes
        self.backbone = Backbone(plan)
        w4, w8, w16, w32 = self.backbone.widths
        channels = plan.neck
        self.detail = nn.Sequential(RepConv(w8, w8), RepConv(w8, channels))
        self.pool = GlobalPool()
        self.whole = Conv(w32, channels)
        self.context32 = Conv(w32, channels)
        self.context16 = CspBlock(w16 + 2 * channels, channels, 1)
        self.join = CspBlock(2 * channels, channels, 1)
        self.skip = Conv(w4, 32)
        self.refine = RepConv(channels + 32, channels)
        self.classes = nn.Conv2d(channels, num_classes, 1)
        self.coarse = nn.Conv2d(channels, num_classes, 1)
        self.border = nn.Conv2d(channels, 1, 1)
        initialise(self)
        for conv in (self.classes, self.coarse, self.border):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C, h / 4, w / 4), for inference."""
        return self._run(x)[0]

    def branches(self, x: Tensor) -> RawClasses:
        """The output and the two teaching heads, for training."""
        logits, context, detail = self._run(x)
        return RawClasses(logits, self.coarse(context), self.border(detail))

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c4, c8, c16, c32 = self.backbone(x)
        detail = self.detail(c8)
        # the picture as a whole: sky is above, a road is below (the global pooling of BiSeNet's context path)
        whole = self.whole(self.pool(c32)).expand(-1, -1, c16.shape[2], c16.shape[3])
        context = self.context16(torch.cat([c16, _doubled(self.context32(c32)), whole], 1))
        joined = self.join(torch.cat([detail, _doubled(context)], 1))
        refined = self.refine(torch.cat([_doubled(joined), self.skip(c4)], 1))
        return self.classes(refined), context, detail


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
