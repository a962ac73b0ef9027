"""The words of the page stand in one file: every key is there and used, and no other file has words of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from edge.interfaces import SwitchPart
from edge.metrics.stages import STAGES, Count
from edge.sinks.home_assistant import EVENT_KINDS

WEB = Path(__file__).parents[3] / "edge" / "web"
SCRIPTS = sorted(path for path in WEB.glob("*.js") if path.name != "words.js")
# what a person reads: an element's text, the names of things, what is said
NAMED = (
    r"\btext: |\"aria-label\": |\b(?:alt|title|placeholder): |\bsay\([^,]+, |\b(?:panel|button|field|tick|link|step)\("
)
SAID = re.compile(rf"(?:{NAMED})(?:\"([^\"]*)\"|`([^`]*)`)")
# or a sentence: two words, the first one with a capital; names of fonts are none
SENTENCE = re.compile(r"\"([A-Z][a-z]+ [a-z][^\"]*)\"|`([A-Z][a-z]+… [^`]*|[A-Z][a-z]+ [a-z][^`]*)`")


def language(name: str = "en") -> dict[str, str]:
    source = (WEB / "words.js").read_text(encoding="utf-8")
    table = re.search(rf"^const {name} = \{{$(.*?)^\}};$", source, re.MULTILINE | re.DOTALL)
    assert table is not None
    return dict(re.findall(r"^  \"([\w.]+)\": \"(.*)\",$", table[1], re.MULTILINE))


def languages() -> list[str]:
    listed = re.search(r"export const LANGUAGES = \{ (.*) \};", (WEB / "words.js").read_text(encoding="utf-8"))
    assert listed is not None
    return listed[1].split(", ")


def used() -> tuple[set[str], set[str]]:
    """Whole keys, and the beginnings of those that end in something known only when the page runs."""
    # the page that asks for a login is made by the server
    asking = [WEB.parent / "server" / name for name in ("login.py", "logins.py", "gate_rules.py")]
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in [*WEB.glob("*.js"), WEB / "index.html", *asking]
        if path.name != "words.js"
    ).replace("'", '"')
    groups = "|".join(sorted({key.partition(".")[0] for key in language()}))
    # t("state.live"), t(isLost ? "state.a" : "state.b"), data-word="state.live"
    keys = set(re.findall(rf"\"((?:{groups})\.[\w.]+)\"", text)) | {"event.who", "event.somebody"}
    # called("kind", event.kind), and what happened, in a sentence
    tables = {f"{table}." for table in re.findall(r"\bcalled\(\"(\w+)\"", text)} | {"told.", "direction.", "kind."}
    return keys, tables | set(re.findall(r"\bt\(`([\w.]+)\$\{", text))


def test_every_key_that_is_used_is_there_and_every_one_that_is_there_is_used() -> None:
    there, (keys, beginnings) = set(language()), used()
    assert keys - there == set()
    assert [one for one in beginnings if not any(key.startswith(one) for key in there)] == []
    assert {key for key in there - keys if not key.startswith(tuple(beginnings))} == set()


def test_what_the_device_calls_by_a_name_has_words() -> None:
    names = {
        "kind": EVENT_KINDS,
        "stage": STAGES,
        "count": get_args(Count),
        "off": get_args(SwitchPart),
    }
    missing = {f"{table}.{name}" for table, known in names.items() for name in flat(known)} - set(language())
    assert missing == set()


def flat(names: Iterable[Any]) -> Iterator[str]:
    """Of a Literal that holds others."""
    for name in names:
        yield from [name] if isinstance(name, str) else flat(get_args(name))


@pytest.mark.parametrize("name", languages())
def test_a_language_has_all_words_and_fills_the_same_in(name: str) -> None:
    def braces(text: str) -> list[str]:
        return sorted(re.findall(r"\{\w+\}", text))

    assert {key: braces(text) for key, text in language(name).items()} == {
        key: braces(text) for key, text in language().items()
    }


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_file_has_no_words_of_its_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [one or other for one, other in [*SAID.findall(text), *SENTENCE.findall(text)]]
    own = [text for text in found if re.search(r"[A-Za-z]{2}", re.sub(r"\$\{[^}]*\}", "", text))]
    assert own == []
