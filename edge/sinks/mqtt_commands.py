"""What a broker's clients ask of the streams: ``TOPIC/STREAM/analysis/set`` and ``…/recording/set`` with ON or OFF.

Anybody who may publish there can send anything, as fast as he likes: what is not exactly a command is refused, of many
commands for one switch only the last one counts, and all are carried out at most once a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from edge.addresses.printable import one_line
from edge.errors import ConfigError
from edge.interfaces import SwitchPart

if TYPE_CHECKING:
    from edge.interfaces import Switch
    from edge.sinks.mqtt_packets import Published

ON, OFF = "ON", "OFF"
PARTS: tuple[SwitchPart, ...] = get_args(SwitchPart)
EVERY_S = 1.0
# what is told of a topic that somebody else has made up
MAX_TOPIC_CHARS = 100


class Commands:
    """Used by one thread.

    Args:
        topic: before the name of a stream.
        streams: gives the names of the streams that run now.
        switch: carries a command out.
        clock_s: of the pauses.
    """

    def __init__(
        self,
        topic: str,
        streams: Callable[[], Sequence[str]],
        switch: Switch,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._streams = streams
        self._switch = switch
        self._clock_s = clock_s
        self._waiting: dict[tuple[str, SwitchPart], bool] = {}
        self._refused: tuple[str, str] | None = None
        self._num_refused = 0
        self._done_s = float("-inf")

    @property
    def topics(self) -> list[str]:
        """Filters of the topics that commands come to."""
        return [f"{self._topic}/+/{part}/set" for part in PARTS]

    def take(self, message: Published) -> None:
        """Remember a command, or why it is none."""
        stream, part = self._place_of(message.topic)
        known = self._streams()
        if part is None:
            self._refuse(message, f"expected {self._topic}/STREAM/analysis/set or …/recording/set")
        elif stream not in known:
            self._refuse(message, f"no stream of this name runs; running: {', '.join(known) or 'none'}")
        elif message.is_retained:
            # it would come again at every connection, long after it was meant
            self._refuse(message, "a retained command is not carried out; publish it without the retain flag")
        elif message.payload not in (b"ON", b"OFF"):
            self._refuse(message, f"expected ON or OFF, found {len(message.payload)} other bytes")
        else:
            self._waiting[stream, part] = message.payload == b"ON"

    def carry_out(self) -> tuple[bool, dict[str, object] | None]:
        """Do what waits, unless that was done within the last second.

        Returns:
            Whether something was carried out, and what was refused last, JSON values; None where nothing was.
        """
        if not (self._waiting or self._refused) or self._clock_s() - self._done_s < EVERY_S:
            return False, None
        self._done_s = self._clock_s()
        waiting, self._waiting = self._waiting, {}
        for (stream, part), is_on in waiting.items():
            try:
                self._switch(stream, part, is_on=is_on)
            except ConfigError as error:
                self._note(f"{self._topic}/{stream}/{part}/set", str(error))
        refused, count = self._refused, self._num_refused
        self._refused, self._num_refused = None, 0
        told = None if refused is None else {"topic": refused[0], "reason": refused[1], "count": count}
        return bool(waiting), told

    def _place_of(self, topic: str) -> tuple[str, SwitchPart | None]:
        prefix = f"{self._topic}/"
        words = topic.removeprefix(prefix).split("/")
        if not topic.startswith(prefix) or len(words) != 3 or words[2] != "set":
            return "", None
        return words[0], next((part for part in PARTS if part == words[1]), None)

    def _refuse(self, message: Published, reason: str) -> None:
        self._note(one_line(message.topic)[:MAX_TOPIC_CHARS], reason)

    def _note(self, topic: str, reason: str) -> None:
        self._refused = (topic, reason)
        self._num_refused += 1
