"""Writing a file changes no state of the process: other threads' files and children keep their permissions."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge.files import write_atomic


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_is_written_without_touching_the_umask(mask: int, mode: int, tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from edge.files import write_atomic
os.umask(int(sys.argv[2]))
def refuse(mask): raise AssertionError("the umask is the whole process's")
os.umask = refuse
write_atomic(Path(sys.argv[1]), "whole")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "f.json"), str(mask)], timeout=60, check=True)
    assert stat.S_IMODE((tmp_path / "f.json").stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "f.json").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "f.json", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]
