"""A foreign classifier as one of ours: its trunk as it was in the file, and one fully connected layer.

Shape letters: B batch, C classes, D features, h w pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.models.classifier import Classifier
from export.models.foreign import Form, Normalise
from export.models.plan_network import PlanNetwork


class ForeignClassifier(Classifier):
    """A classifier whose trunk is that of an ONNX file. Input (B, 3, h, w) float in [0, 1], BGR."""

    def __init__(self, form: Form, num_classes: int, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.form = form
        self.num_classes = num_classes
        self.normalise = Normalise(form)
        self.trunk = PlanNetwork(form.plan)
        self.drop = nn.Dropout(dropout)
        self.full = nn.Linear(form.plan.shapes[form.plan.outputs[0]][1], num_classes)
        nn.init.normal_(self.full.weight, std=0.01)
        nn.init.zeros_(self.full.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        (features,) = self.trunk(self.normalise(x))
        logits: Tensor = self.full(self.drop(features.flatten(1)))
        return logits

    def fold_input(self) -> None:
        """Take bytes instead of [0, 1] from now on; for export."""
        self.normalise.fold(self.trunk)
