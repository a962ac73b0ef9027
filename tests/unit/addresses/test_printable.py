"""Text of strangers as it may stand in a sentence of ours."""

from __future__ import annotations

import pytest

from edge.addresses.printable import first_line


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("one\ntwo", "one"),
        ("\n  after an empty line\nmore", "after an empty line"),
        # an error that says nothing is still told by its kind
        ("", "ValueError"),
        ("\n \n", "ValueError"),
        ("a\x1b[31mb", "a [31mb"),
        ("x" * 500, "x" * 200),
    ],
)
def test_the_first_line_of_an_error_is_one_short_line(message: str, words: str) -> None:
    assert first_line(ValueError(message)) == words
