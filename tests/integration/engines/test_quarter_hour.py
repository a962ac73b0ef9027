"""The script for a quarter of an hour on a card: it ends with its table, whatever fails or hangs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "gpu" / "quarter_hour.py"))


def test_the_table_comes_whatever_fails_or_hangs(capsys: pytest.CaptureFixture[str]) -> None:
    step, python = SCRIPT["Step"], sys.executable
    SCRIPT["main"].__globals__["steps"] = lambda: [
        step("good", "a", (python, "-c", ""), 30),
        step("bad", "b", (python, "-c", "raise SystemExit(3)"), 30),
        step("slow", "c", (python, "-c", "import time; time.sleep(60)"), 0.5),
        step("absent", "d", None, 30),
        step("no program", "e", ("/no/such/program",), 30),
    ]
    assert SCRIPT["main"]() == 1
    table = capsys.readouterr().out.rpartition("| --- | --- | --- |")[2]
    results = [line.split(" | ")[2].removesuffix(" |") for line in table.strip().splitlines()]
    assert results[0].startswith("ok") and results[1].startswith("FAILED (3)")
    assert results[2:4] == ["longer than 0.5 s", "not here"] and "No such file" in results[4]


def test_all_steps_together_fit_into_a_quarter_of_an_hour() -> None:
    steps = SCRIPT["steps"]()
    assert len({step.name for step in steps}) == len(steps) == 9
    assert sum(step.limit_s for step in steps) <= 15 * 60
