"""Being left alone for a while: a message offers it in a signed text, and it holds for who got the message alone.

The text allows this one thing, until it expires: to tell that receiver nothing of these cameras' events of these kinds.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.errors import ConfigError, SinkError
from edge.files import load_object, parse_json, write_atomic
from edge.net.signed import SNOOZE_PURPOSE, data_of, signed, signed_data, text_of

log = logging.getLogger(__name__)
# how long after its message a text is good
OFFER_S = 24 * 3600.0
MAX_S = 24 * 3600.0
MAX_SNOOZES = 256
# of one message; with more, all kinds of each camera
MAX_PAIRS = 6
ANY = ""
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Snooze:
    """Until when a target is not told of a stream's events of a kind (empty: any). ``until_s`` is since 1970."""

    id: str
    target: str
    stream: str
    kind: str
    until_s: float


@dataclass(frozen=True, slots=True)
class Offer:
    """What a text allows."""

    target: str
    pairs: tuple[tuple[str, str], ...]


class Snoozes:
    """Kept in a file that only its owner reads, with the key of the texts. Any thread may call any method.

    Args:
        path: the file; a damaged one is set aside, and all is told again.
        clock_s: since 1970.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock_s = clock_s
        self._lock = threading.Lock()
        kept = load_object(path)
        self.key = _key_in(kept)
        self._snoozes = tuple(one for one in map(_snooze, _listed(kept)) if one is not None)
        if not self.key:
            self.key = secrets.token_bytes(KEY_BYTES)
            try:
                self._write(self._snoozes)
            except SinkError as error:
                # until then the texts are good for this run
                log.error("%s", error)

    def offer(self, target: str, happened: Sequence[tuple[str, str]]) -> str:
        """The text for a message to a target about what happened: streams and kinds."""
        pairs = list(happened)
        if len(pairs) > MAX_PAIRS:
            pairs = list(dict.fromkeys((stream, ANY) for stream, _ in pairs))[:MAX_PAIRS]
        facts = [target, pairs, int(self._clock_s() + OFFER_S)]
        return signed(json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode(), self.key, SNOOZE_PURPOSE)

    def read(self, text: str) -> Offer:
        """What a text allows. Raises: ConfigError: it is not ours, or too old."""
        data = signed_data(text, self.key, SNOOZE_PURPOSE)
        if data is None:
            raise ConfigError("this link is not one of this device")
        target, pairs, end_s = parse_json(data)
        if not 0 < end_s - self._clock_s() <= OFFER_S:
            raise ConfigError("this link is too old; a newer message has another")
        return Offer(target, tuple((stream, kind) for stream, kind in pairs))

    def begin(self, text: str, hours: float) -> float:
        """Leave its receiver alone from now on, or no longer.

        Args:
            text: that a message offered.
            hours: 0 ends what it began.

        Returns:
            Until when, since 1970.

        Raises:
            ConfigError: the text is not ours or too old, or the time is too long.
            SinkError: it cannot be written.
        """
        offer = self.read(text)
        if not 0 <= hours * 3600 <= MAX_S:
            raise ConfigError(f"expected up to {MAX_S / 3600:g} hours")
        until_s = self._clock_s() + hours * 3600
        begun = [Snooze(secrets.token_hex(8), offer.target, *pair, until_s) for pair in offer.pairs]
        replaced = {(one.target, one.stream, one.kind) for one in begun}
        with self._lock:
            others = [one for one in self._now() if (one.target, one.stream, one.kind) not in replaced]
            self._write((*others, *(begun if hours else ()))[-MAX_SNOOZES:])
        return until_s

    def now(self) -> list[Snooze]:
        """Those that hold now."""
        with self._lock:
            return self._now()

    def end(self, snooze_id: str) -> bool:
        """End one; False where it is not there. Raises: SinkError: this cannot be written."""
        with self._lock:
            left = [one for one in self._now() if one.id != snooze_id]
            is_there = len(left) < len(self._now())
            if is_there:
                self._write(tuple(left))
        return is_there

    def is_on(self, target: str, stream: str, kind: str) -> bool:
        """Whether a target is left alone now. Takes no lock: what is read is replaced as a whole."""
        return any(
            one.target == target and one.stream == stream and one.kind in (kind, ANY) and self._holds(one)
            for one in self._snoozes
        )

    def _now(self) -> list[Snooze]:
        return [one for one in self._snoozes if self._holds(one)]

    def _holds(self, snooze: Snooze) -> bool:
        # a clock that was set back must not make an hour of it a year
        return 0 < snooze.until_s - self._clock_s() <= MAX_S

    def _write(self, snoozes: tuple[Snooze, ...]) -> None:
        kept = {"key": text_of(self.key), "snoozes": [asdict(one) for one in snoozes]}
        try:
            write_atomic(self._path, json.dumps(kept, indent=1) + "\n", mode=0o600)
        except OSError as error:
            raise SinkError(f"{self._path}: cannot be written ({error.strerror})") from None
        self._snoozes = snoozes


def _key_in(kept: Mapping[str, Any]) -> bytes:
    try:
        key = data_of(str(kept.get("key", "")))
    except ValueError:
        return b""
    return key if len(key) == KEY_BYTES else b""


def _listed(kept: Mapping[str, Any]) -> list[Any]:
    snoozes = kept.get("snoozes", [])
    return snoozes[:MAX_SNOOZES] if isinstance(snoozes, list) else []


def _snooze(value: Any) -> Snooze | None:
    match value:
        case {"id": str(key), "target": str(target), "stream": str(stream), "kind": str(kind), "until_s": float(until)}:
            return Snooze(key, target, stream, kind, until)
    return None
