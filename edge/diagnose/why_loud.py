"""Why it was not loud at a moment, or was: from the loudest level of each second, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.config.analytics import LoudSettings


@dataclass(frozen=True, slots=True)
class LoudAnswer:
    """The cause, what is said, and the setting that would have let it through; see ``why_scene.Answer``."""

    cause: str
    text: str
    key: str = ""
    value: Any = None


def why_loud(rule: LoudSettings | None, heard: Sequence[Mapping[str, Any]]) -> LoudAnswer:
    """The cause.

    Args:
        rule: as it was then.
        heard: ``dbfs`` and ``came`` of each second of the window, see ``LoudRule.take_heard``.
    """
    if rule is None:
        return LoudAnswer("no_rule", "nobody listened then: the stream had no [streams.loud]", "loud")
    if not heard:
        return LoudAnswer("no_sound", "no sound came: the camera was away, or sends none")
    said = [second for second in heard if second["came"] == "said"]
    loudest = max(said or heard, key=lambda second: float(second["dbfs"]))
    dbfs, came = float(loudest["dbfs"]), str(loudest["came"])
    level = f"the loudest was {dbfs:.1f} dBFS"
    match came:
        case "said":
            return LoudAnswer("said", f"loud was said, at {dbfs:.1f} dBFS (loud.dbfs = {rule.dbfs:g})")
        case "cool_down":
            text = f"{level}, less than loud.cool_down_s = {rule.cool_down_s:g} after the event before"
            return LoudAnswer("cool_down", text, "loud.cool_down_s", 0.0)
        case "schedule":
            return LoudAnswer("schedule", f"{level}, while the schedule of loud was off", "loud.schedules", ())
        case "hold":
            text = f"{level}, for less than loud.hold_s = {rule.hold_s:g}"
            return LoudAnswer("hold", text, "loud.hold_s", 0.0)
    value = float(math.floor(dbfs))
    text = f"{level}, below loud.dbfs = {rule.dbfs:g}; loud.dbfs = {value:g} would have let it through"
    return LoudAnswer("level", text, "loud.dbfs", value)
