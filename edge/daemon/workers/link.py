"""Messages between the daemon and a worker: one JSON object a packet, over a socket of the two alone.

Whoever asks waits for the answer in the thread that asks; everything else is handled in the thread that runs the link.
Only small things go this way: pictures lie in shared memory (``edge.daemon.workers.pages``).
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerError
from contextlib import suppress
from typing import Any, TypeAlias

from edge import errors
from edge.errors import EdgeError

log = logging.getLogger(__name__)
Message: TypeAlias = dict[str, Any]
# a packet must fit into the buffer of the socket, which is 208 KB unless the system says otherwise
MAX_BYTES = 160_000
SEND_TIMEOUT_S = 5.0
ASK_TIMEOUT_S = 30.0


class LinkClosedError(EdgeError):
    """The other process is gone, or takes nothing any more."""


class Link:
    """One end. Any thread may send and ask; one thread runs it.

    Args:
        channel: a SEQPACKET socket, closed here.
        handle: told of every message that is no answer; must not ask through this link, for the answer comes after it.
    """

    def __init__(self, channel: socket.socket, handle: Callable[[Message], None]) -> None:
        self._channel = channel
        # who receives waits without limit, so only the senders have one
        channel.setblocking(True)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT_S))
        self._handle = handle
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Message]] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    def run(self, _: threading.Event | None = None) -> None:
        """Take what comes until the other end is closed."""
        try:
            while data := self._receive():
                message = json.loads(data)
                if message["kind"] == "answer":
                    self._settle(message)
                else:
                    self._handle(message)
        finally:
            self._give_up()

    def send(self, kind: str, *, may_drop: bool = False, **facts: Any) -> bool:
        """Send a message.

        Args:
            kind: of the message.
            may_drop: rather than wait for somebody who takes nothing.
            facts: JSON values.

        Returns:
            Whether it was sent; always, unless it could be dropped.

        Raises:
            LinkClosedError: the other end is gone.
        """
        data = json.dumps({"kind": kind, **facts}, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(data) <= MAX_BYTES, f"a message {kind!r} of {len(data)} bytes"
        try:
            self._channel.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL if may_drop else socket.MSG_NOSIGNAL)
        except BlockingIOError:
            if may_drop:
                return False
            raise LinkClosedError(f"the other process takes nothing for {SEND_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise LinkClosedError(f"the other process is gone ({error.strerror})") from None
        return True

    def ask(self, kind: str, timeout_s: float = ASK_TIMEOUT_S, **facts: Any) -> Message:
        """Send a message and wait for its answer.

        Raises:
            EdgeError: the other side says so, is gone, or does not answer in time.
        """
        number, answer = next(self._numbers), Future[Message]()
        with self._lock:
            if self._is_closed:
                raise LinkClosedError("the other process is gone")
            self._waiting[number] = answer
        try:
            self.send(kind, number=number, **facts)
            return answer.result(timeout_s)
        except NoAnswerError:
            raise LinkClosedError(f"no answer to {kind!r} within {timeout_s:g} s") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def answer(self, message: Message, **facts: Any) -> None:
        """Answer a message that asks; nothing where nobody waits any more."""
        with suppress(LinkClosedError):
            self.send("answer", number=message["number"], **facts)

    def answer_error(self, message: Message, error: EdgeError) -> None:
        """Let what the other side asked for raise there."""
        self.answer(message, error=str(error), error_kind=type(error).__name__)

    def close(self) -> None:
        """End it; who runs it returns."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> bytes:
        try:
            return self._channel.recv(MAX_BYTES)
        except OSError:
            return b""

    def _settle(self, message: Message) -> None:
        with self._lock:
            waiting = self._waiting.pop(message["number"], None)
        if waiting is None:
            return
        if "error" in message:
            waiting.set_exception(raised(message))
        else:
            waiting.set_result(message)

    def _give_up(self) -> None:
        # who handles knows the link as well: neither shall keep the other, and its memory, alive
        self._handle = lambda _: None
        with self._lock:
            self._is_closed = True
            waiting, self._waiting = list(self._waiting.values()), {}
        for answer in waiting:
            answer.set_exception(LinkClosedError("the other process is gone"))
        self._channel.close()


def raised(message: Message) -> EdgeError:
    """The error of the other side, of its own kind, so that a command ends with the right code."""
    kind = getattr(errors, message.get("error_kind", ""), EdgeError)
    is_ours = isinstance(kind, type) and issubclass(kind, EdgeError)
    raised: EdgeError = (kind if is_ours else EdgeError)(message["error"])
    return raised


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
