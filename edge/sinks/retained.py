"""Which retained messages a broker keeps for us, remembered over restarts: an empty one takes back what is gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from edge.files import load_object, write_atomic

MAX_TOPICS = 10_000
MAX_TOPIC_BYTES = 1024


class Retained:
    """Used by one thread.

    Args:
        file: where the topics are kept; None: they are forgotten at the end.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._texts: dict[str, str] = {}
        # published here without a text that matters: pictures
        self._others: set[str] = set()
        # of a run before: taken back once it is known what this one tells
        self._earlier = set(self._read())
        self._written = set(self._earlier)

    def __bool__(self) -> bool:
        return bool(self._texts or self._others or self._earlier)

    def forget_texts(self) -> None:
        """The broker may be another one, or may have forgotten: all is told again."""
        self._texts = dict.fromkeys(self._texts, "")

    def add(self, topics: Iterable[str]) -> None:
        """These were published, and their text does not matter."""
        self._others.update(topics)
        self._write()

    def missing(self, wanted: Mapping[str, str], allowed: set[str], *, is_whole: bool) -> dict[str, str]:
        """What must be published for the broker to have what is wanted and nothing else of ours, topic → text.

        Args:
            wanted: topic → text.
            allowed: topics that may be there as well.
            is_whole: whether nothing is missing in ``wanted`` only because it is not known yet.
        """
        there = {*self._texts, *self._others, *(self._earlier if is_whole else ())}
        gone = dict.fromkeys(sorted(there - set(wanted) - allowed), "")
        return gone | {topic: text for topic, text in wanted.items() if self._texts.get(topic) != text}

    def published(self, wanted: Mapping[str, str], allowed: set[str], *, is_whole: bool) -> None:
        """What ``missing`` gave was published. Args: the same."""
        if is_whole:
            self._others |= self._earlier
            self._earlier = set()
        self._texts, self._others = dict(wanted), self._others & allowed
        self._write()

    def _read(self) -> list[str]:
        if self._file is None:
            return []
        try:
            found = load_object(self._file).get("topics")
        except OSError:
            return []
        topics = found if isinstance(found, list) else []
        return [one for one in topics[:MAX_TOPICS] if _is_topic(one)]

    def _write(self) -> None:
        """Keep the topics; on a disk that takes nothing, a later start takes back less."""
        now = {*self._texts, *self._others, *self._earlier}
        if self._file is None or now == self._written:
            return
        with suppress(OSError):
            write_atomic(self._file, json.dumps({"topics": sorted(now)}, indent=0), 0o600)
            self._written = now


def _is_topic(value: object) -> bool:
    """Whether it is one that we publish to."""
    return (
        isinstance(value, str)
        and len(value.encode("utf-8", "replace")) <= MAX_TOPIC_BYTES
        and value.isprintable()
        and not {"#", "+"} & set(value)
        and (value.endswith(("/state", "/snapshot")) or ("/edgeloop-" in value and value.endswith("/config")))
    )
