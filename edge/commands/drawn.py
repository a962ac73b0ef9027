"""Lines and zones of a command line: ``--line gate=0.1,0.5,0.9,0.5``, ``--zone yard=0.1,0.5,0.9,0.5,0.5,1``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from edge.errors import UsageError

Lines = Annotated[
    list[str] | None,
    typer.Option("--line", help="Count who crosses it: NAME=x1,y1,x2,y2, shares of width and height (or pixels)."),
]
Zones = Annotated[
    list[str] | None, typer.Option("--zone", help="Count who enters it: NAME=x1,y1,x2,y2,x3,y3,…, as for --line.")
]


def drawn(lines: Sequence[str] | None, zones: Sequence[str] | None) -> dict[str, Any]:
    """The ``[streams.analytics]`` table of a command line.

    Raises:
        UsageError: a text is no name with corners.
    """
    return {
        "lines": [_shape("--line", text, least=2, most=2) for text in lines or ()],
        "zones": [_shape("--zone", text, least=3, most=1000) for text in zones or ()],
    }


def _shape(option: str, text: str, *, least: int, most: int) -> dict[str, Any]:
    name, _, numbers = text.partition("=")
    expected = f"expected {'NAME=x1,y1,x2,y2' if most == 2 else 'NAME=x1,y1,x2,y2,x3,y3,…'}"
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    points = list(zip(values[::2], values[1::2], strict=False))
    if not name or len(values) % 2 or not least <= len(points) <= most:
        raise UsageError(f"{option} {text}: {expected}, shares from 0 to 1 of the picture's size, or pixels")
    # a corner at pixel 1,1 of the picture is nobody's wish
    is_share = all(0 <= value <= 1 for value in values)
    return {"name": name, "points_share" if is_share else "points_px": points}
