"""What a machine without servers is told at the end of the tests, and the list that make servers installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import needs
import pytest


def test_one_sentence_sums_up_what_was_skipped() -> None:
    missing = {f"{needs.REASON}ffmpeg": 3, f"{needs.REASON}mosquitto": 2, needs.NO_SHARED: 4, "no /dev/full": 1}
    assert needs.summed_up(missing) == (
        "10 tests were skipped: 5 for want of ffmpeg, mosquitto (make servers brings them); "
        "4 for want of the data next to the project (../shared/data); 1 for reasons that -rs tells"
    )


def test_a_program_that_is_not_there_skips_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "find", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="not installed here: ffmpeg"):
        needs.need("ffmpeg")


def test_the_script_prints_every_package_once() -> None:
    printed = subprocess.run(
        [sys.executable, needs.__file__], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(printed) == len(set(printed))
    assert {"ffmpeg", "mosquitto", "chromium-driver", "gir1.2-gst-rtsp-server-1.0"} <= set(printed)
    assert "make servers" in (Path(__file__).parents[2] / ".ci" / "run").read_text()
