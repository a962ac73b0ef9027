"""Tells people what happened through a service that Apprise knows: ntfy, Telegram, e-mail, Signal, …

Apprise's plugins wait for a server, and read what it answers, as long as that likes. So each message is sent by a child
process that has a deadline and a limit of memory; the service's address reaches it over its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edge.addresses.printable import printable
from edge.addresses.secrets import read_secret, register
from edge.addresses.uris import scheme_of
from edge.errors import ConfigError, MissingError, SinkError
from edge.files import parse_json
from edge.threads.python_process import child_environment, python_command

if TYPE_CHECKING:
    from edge.config.events import NotifySettings
    from edge.events.message import Message

MAX_ANSWER_CHARS = 400
# of a child that was killed
KILLED_S = 5.0
# how often it is asked whether to stop
LOOK_S = 0.2


class NotifyTarget:
    """Sends messages to one service. The file with its address is read again for each.

    Args:
        settings: of the messages.
        offer: gives the text with which the person may ask for silence; None: there is no link for that.

    Raises:
        MissingError: Apprise is not installed.
    """

    def __init__(self, settings: NotifySettings, offer: Callable[[Message], str] | None = None) -> None:
        if find_spec("apprise") is None:
            raise MissingError("[[notify]] needs Apprise; run: pip install 'edgeloop[notify]'")
        self.name = settings.name
        self._settings = settings
        self._offer = offer

    def send(self, message: Message, stopping: threading.Event) -> None:
        """Send it. Raises: SinkError: the service did not take it, or it was to stop."""
        picture = message.picture if self._settings.picture else None
        self._ask(
            {
                "title": message.title,
                "body": message.body + self._link(message),
                "picture": str(picture) if picture is not None and picture.is_file() else "",
            },
            stopping,
        )

    def _link(self, message: Message) -> str:
        """Leads to a page with a button: programs that look at every link of a message change nothing."""
        page = self._settings.page_url
        if page is None or self._offer is None or not message.happened:
            return ""
        return f"\n\nQuiet for a while: {page.rstrip('/')}/snooze?k={self._offer(message)}"

    def try_service(self) -> str:
        """See that the address is understood and its server can be reached, and send nothing; in words.

        Raises:
            SinkError: it is not.
        """
        return self._ask({}, threading.Event())

    def _ask(self, facts: dict[str, str], stopping: threading.Event) -> str:
        url = self._url()
        service, timeout_s = scheme_of(url), self._settings.timeout_s
        order = json.dumps({"url": url, **facts, "timeout_s": timeout_s})
        child = subprocess.Popen(
            python_command("edge.sinks.notify_child", str(os.getpid())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # a library's log may hold the address
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            text=True,
            errors="replace",
            start_new_session=True,
        )
        said = _answer_of(child, order, timeout_s, stopping)
        if said is None:
            raise SinkError(f"{service}: the message was not taken within {timeout_s:g} s")
        if child.returncode != 0:
            raise SinkError(f"{service}: {_words(said) or 'the sender broke off'}")
        return _words(said)

    def _url(self) -> str:
        """The service's address. Raises: SinkError: it cannot be read."""
        try:
            url = read_secret(self._settings.url_file or Path(), f"notify.{self.name}.url_file")
        except ConfigError as error:
            raise SinkError(str(error)) from None
        if not scheme_of(url):
            raise SinkError(f"notify.{self.name}.url_file: expected an Apprise address, SERVICE://…, in one line")
        register(url.partition("://")[2])
        return url


def _answer_of(child: subprocess.Popen[str], order: str, timeout_s: float, stopping: threading.Event) -> str | None:
    """What the child says at its end; None, and it is killed, where that takes too long or is to stop."""
    deadline_s = time.monotonic() + timeout_s
    asked: str | None = order
    while time.monotonic() < deadline_s and not stopping.is_set():
        try:
            return child.communicate(asked, LOOK_S)[0]
        except subprocess.TimeoutExpired:
            asked = None
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=KILLED_S)
    return None


def _words(said: str) -> str:
    """What the child says in its one line of JSON."""
    try:
        return printable(str(parse_json(said.encode())["text"]))[:MAX_ANSWER_CHARS]
    except (ValueError, TypeError, KeyError):
        return ""
