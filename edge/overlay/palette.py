"""Colours that people with any kind of colour vision can tell apart, as BGR triples of 0..255."""

from __future__ import annotations

from typing import TypeAlias

Colour: TypeAlias = tuple[int, int, int]


def _bgr(code: str) -> Colour:
    return int(code[4:6], 16), int(code[2:4], 16), int(code[0:2], 16)


# first seven: Okabe and Ito, "Color Universal Design" (2008), without black; then light tones of Paul Tol's "muted" set
SAFE = tuple(
    _bgr(code)
    for code in (
        "56B4E9", "E69F00", "009E73", "F0E442", "D55E00", "CC79A7", "0072B2",
        "DDCC77", "88CCEE", "44AA99", "999933", "CC6677", "AA4499", "DDDDDD",
    )
)  # fmt: skip
# greys and white only, for pictures that are printed or looked at without colours

INK_LIGHT: Colour = (255, 255, 255)
INK_DARK: Colour = (24, 18, 16)
PANEL: Colour = (30, 23, 20)
STATE_COLOURS: dict[str, Colour] = {
    "live": _bgr("2FBF87"),
    "connecting": _bgr("F0E442"),
    "frozen": _bgr("E69F00"),
    "offline": _bgr("D55E00"),
    "ended": _bgr("BBBBBB"),
}


def ink_on(fill: Colour) -> Colour:
    """Dark or light text, whichever has more contrast on this fill (relative luminance of WCAG 2.1)."""
    blue, green, red = (_linear(value / 255) for value in fill)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # contrast with white equals contrast with black at sqrt(1.05 * 0.05) - 0.05
    return INK_DARK if luminance > 0.179 else INK_LIGHT


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.03928 else float(((value + 0.055) / 1.055) ** 2.4)
