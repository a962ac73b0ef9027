"""The list of tests that a busy machine spoils names files that are there."""

from __future__ import annotations

from quiet import QUIET, files


def test_every_file_is_there_and_of_one_kind() -> None:
    named = [path for kind in QUIET for path in files(kind)]
    assert [path for path in named if not path.is_file()] == []
    assert len(set(named)) == len(named)
