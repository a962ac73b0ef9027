"""Text of strangers (names in a model, what a camera says) as it may stand in a terminal and in a log."""

from __future__ import annotations

# a line's end and a tab stay; what moves the cursor, ends a line elsewhere or turns the direction of writing goes
KEPT = "\n\t"


def printable(text: str, kept: str = KEPT) -> str:
    """The text with a space in place of each control character, and of what only looks like nothing."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in kept else " " for letter in text)


def one_line(text: str) -> str:
    """The same for what stands inside a sentence: names, versions."""
    return printable(text, kept="")


def first_line(error: BaseException) -> str:
    """What a library's error says first, for a sentence of ours; the kind of error where it says nothing."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0])[:200] if lines else type(error).__name__
