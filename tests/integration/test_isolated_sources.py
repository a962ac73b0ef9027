"""The contract of sources holds for those that read in a process of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract.test_source_contract import (
    ISOLATED,
    NO_SOURCES,
    SOURCES,
    no_source,
    test_a_picture_is_not_written_to_after_it_was_given,
    test_closing_twice_is_fine,
    test_it_gives_every_picture_once_and_then_none,
    test_it_says_what_it_is,
)

from edge.errors import SourceError
from edge.interfaces import Source
from edge.sources.choose import open_source

__all__ = [
    "test_a_picture_is_not_written_to_after_it_was_given",
    "test_closing_twice_is_fine",
    "test_it_gives_every_picture_once_and_then_none",
    "test_it_says_what_it_is",
]


@pytest.fixture(params=ISOLATED)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    opened = SOURCES[request.param](tmp_path)
    request.addfinalizer(opened.close)
    return opened


@pytest.mark.parametrize(("content", "name", "expected"), NO_SOURCES)
def test_what_is_no_source_is_one_sentence(tmp_path: Path, content: bytes | None, name: str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected):
        open_source(no_source(tmp_path, content, name), is_isolated=True)
