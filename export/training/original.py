"""Imitating the original: a network whose activations are exchanged is shown what it used to compute.

Shape letters: B batch, A grid points, C classes, D channels, h w pixels of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.models.detector import RawBoxes
from export.models.foreign_detector import ForeignDetector
from export.training.losses import BOX_GAIN, Loss, complete_iou, shared_scale

EPS = 1e-12
# one minus a correlation is a small number next to the losses of boxes
MAP_GAIN = 10.0


class Original(nn.Module):
    """The network as it was in the file, and the loss of being unlike it.

    Args:
        network: with its kept head; it does not learn.
    """

    def __init__(self, network: ForeignDetector) -> None:
        super().__init__()
        self.network = network.eval()
        for value in self.parameters():
            value.requires_grad_(False)

    def forward(self, pupil: ForeignDetector, x: Tensor) -> tuple[tuple[Tensor, ...], Loss]:
        """The pupil's maps, and the loss of being unlike; ``x`` (B, 3, h, w) in [0, 1]."""
        with torch.no_grad():
            wanted = self.network.levels(x)
            boxes = self.network.kept(wanted)
        found = pupil.levels(x)
        pairs = zip(found, wanted, strict=True)
        distance = torch.stack([unlike(new, old) for new, old in pairs]).mean()
        classes, places = as_labels(pupil.kept(found), boxes)
        total = MAP_GAIN * distance + classes + BOX_GAIN * places
        parts = {"maps": distance, "class": classes, "box": places}
        return found, Loss(total, {name: part.detach() for name, part in parts.items()})


def unlike(found: Tensor, wanted: Tensor) -> Tensor:
    """How badly two maps (B, D, h, w) correlate, channel by channel: 0 for the same except for scale and offset, to 2.

    Scale and offset are free because a refit moves them: the layers behind were fitted to what comes.
    """
    mine, theirs = (value.float().transpose(0, 1).flatten(1) for value in (found, wanted))
    mine, theirs = mine - mine.mean(1, keepdim=True), theirs - theirs.mean(1, keepdim=True)
    power = mine.pow(2).sum(1) * theirs.pow(2).sum(1)
    return (1 - (mine * theirs).sum(1) / power.clamp(min=EPS).sqrt()).mean()


def as_labels(found: RawBoxes, wanted: RawBoxes) -> tuple[Tensor, Tensor]:
    """Class and box loss with another network's boxes as soft truth at every grid point."""
    score = wanted.logits.sigmoid()
    sure = score.amax(-1)
    scale = shared_scale(sure.sum())
    classes = F.binary_cross_entropy_with_logits(found.logits, score, reduction="sum") / scale
    chosen = sure > 0.05
    overlap = complete_iou(found.xyxy[chosen], wanted.xyxy[chosen])
    return classes, ((1 - overlap) * sure[chosen]).sum() / scale
