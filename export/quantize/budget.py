"""What a smaller model may lose: a share of the float model's accuracy, and how far it may see footage differently."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one candidate.

    Attributes:
        metric: main metric on labelled pictures.
        agreement: how alike it and the float model see them, 0 to 1 (``export.quantize.agreement``).
        on_footage: the same on unlabelled footage; None where there is none.
    """

    metric: float
    agreement: float
    on_footage: float | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """The least that is accepted. Attributes: ``name`` of the metric; ``metric``, ``on_footage``: least values."""

    name: str
    metric: float
    on_footage: float = 0.0

    def holds(self, found: Figures) -> bool:
        """Whether a candidate is inside."""
        return found.metric >= self.metric and (found.on_footage is None or found.on_footage >= self.on_footage)

    def rank(self, found: Figures) -> tuple[bool, float]:
        """Greater is better.

        Inside the budget differences of the metric are chance, while a candidate that sees things as the float model
        does also does so in pictures that nobody has labelled; outside, what is nearest to the budget is best.
        """
        if self.holds(found):
            return True, min(found.agreement, 1.0 if found.on_footage is None else found.on_footage)
        shares = [found.metric / self.metric if self.metric else 1.0]
        if found.on_footage is not None and self.on_footage:
            shares.append(found.on_footage / self.on_footage)
        return False, min(shares)

    def describe(self, found: Figures) -> str:
        """Figures next to what was asked for, in words."""
        text = f"{self.name} {found.metric:.4f} (at least {self.metric:.4f} is wanted)"
        if found.on_footage is not None:
            text += f", sees {found.on_footage:.1%} of the footage as float does (at least {self.on_footage:.1%})"
        return text
