"""What is said of sound that was no event."""

from __future__ import annotations

import pytest

from edge.config.analytics import LoudSettings
from edge.diagnose.why_loud import why_loud

RULE = LoudSettings(dbfs=-25, hold_s=2, cool_down_s=60)


@pytest.mark.parametrize(
    ("heard", "cause", "setting", "words"),
    [
        ([(-60.0, "level"), (-31.4, "level")], "level", ("loud.dbfs", -32.0), "the loudest was -31.4 dBFS"),
        ([(-60.0, "level"), (-12.0, "hold")], "hold", ("loud.hold_s", 0.0), "for less than loud.hold_s = 2"),
        ([(-12.0, "cool_down")], "cool_down", ("loud.cool_down_s", 0.0), "after the event before"),
        ([(-12.0, "schedule"), (-30.0, "level")], "schedule", ("loud.schedules", ()), "the schedule of loud was off"),
        ([(-12.0, "said"), (-3.0, "cool_down")], "said", ("", None), "at -12.0 dBFS"),
        ([], "no_sound", ("", None), "no sound came"),
    ],
)
def test_the_cause_is_named(
    heard: list[tuple[float, str]], cause: str, setting: tuple[str, object], words: str
) -> None:
    found = why_loud(RULE, [{"dbfs": dbfs, "came": came} for dbfs, came in heard])
    assert (found.cause, (found.key, found.value)) == (cause, setting)
    assert words in found.text


def test_where_nobody_listened_the_missing_table_is_named() -> None:
    found = why_loud(None, [])
    assert (found.cause, found.key) == ("no_rule", "loud")
