"""The classifier: backbone, global average pooling, dropout, fully connected layers.

Shape letters: B batch, C classes, h w pixels of the input.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.models.backbone import PLANS, Backbone, Size
from export.models.blocks import Conv, GlobalPool, PictureNetwork, initialise

TINY_STRIDES = (1, 1, 2, 2, 2)
FULL_STRIDES = (2, 2, 2, 2, 2)
HIDDEN = 256


class Classifier(PictureNetwork):
    """The whole classifier. Input (B, 3, h, w) float in [0, 1], BGR.

    A 1x1 convolution widens the last map before the average, so that the fully connected layer has more to choose
    from; batch norm is folded into it (as in MobileNetV3, Howard et al. 2019).

    Args:
        dropout: share of features dropped before the fully connected layer while training.
        tiny_input: keep the full resolution in the first two layers, for pictures of 32x32 or so.
    """

    def __init__(self, size: Size, num_classes: int, dropout: float = 0.1, tiny_input: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = Backbone(PLANS[size], TINY_STRIDES if tiny_input else FULL_STRIDES)
        self.widen = Conv(self.backbone.widths[-1], HIDDEN)
        self.pool = GlobalPool()
        self.drop = nn.Dropout(dropout)
        self.full = nn.Linear(HIDDEN, num_classes)
        initialise(self)
        nn.init.normal_(self.full.weight, std=0.01)
        nn.init.zeros_(self.full.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        features = self.pool(self.widen(self.backbone(x)[-1])).flatten(1)
        logits: Tensor = self.full(self.drop(features))
        return logits
