"""Lines and zones of a command line become the table that a file would have."""

from __future__ import annotations

import pytest

from edge.commands.drawn import drawn
from edge.config.analytics import AnalyticsSettings
from edge.errors import UsageError


def test_shares_and_pixels_are_told_apart() -> None:
    found = AnalyticsSettings(**drawn(["gate=0.1,0.5,0.9,0.5"], ["yard=10,20,300,20,300,200"]))
    assert found.lines[0].points_share == ((0.1, 0.5), (0.9, 0.5))
    assert found.zones[0].points_px == ((10, 20), (300, 20), (300, 200))


def test_nothing_drawn_is_the_default() -> None:
    assert AnalyticsSettings(**drawn(None, None)) == AnalyticsSettings()


@pytest.mark.parametrize(
    ("lines", "zones", "words"),
    [
        (["0.1,0.5,0.9,0.5"], None, "--line 0.1,0.5,0.9,0.5: expected NAME=x1,y1,x2,y2"),
        (["gate=0.1,0.5,0.9"], None, "expected NAME=x1,y1,x2,y2"),
        (["gate=0.1,0.5,0.9,0.5,1,1"], None, "expected NAME=x1,y1,x2,y2"),
        (["gate=a,b,c,d"], None, "expected NAME=x1,y1,x2,y2"),
        (["=0,0,1,1"], None, "expected NAME="),
        (None, ["yard=0,0,1,1"], "--zone yard=0,0,1,1: expected NAME=x1,y1,x2,y2,x3,y3"),
    ],
)
def test_a_mistake_says_what_was_expected(lines: list[str] | None, zones: list[str] | None, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        drawn(lines, zones)
    assert words in str(refused.value)
