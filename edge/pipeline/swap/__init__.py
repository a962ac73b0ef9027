"""Changing the model while frames flow: trial, shadow run, agreement, roll-back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.pipeline.swap.report import SwapReport
    from edge.pipeline.swap.swap import Order, Swap

__all__ = ["Order", "Swap", "SwapReport"]
__getattr__ = lazily(__name__, {"Order": "swap", "Swap": "swap", "SwapReport": "report"})
