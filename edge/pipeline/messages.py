"""Messages to people while the daemon runs: phones that come and go, and who wants to be left alone for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.analytics.schedule import Schedule
from edge.errors import ConfigError, SinkError
from edge.events.joined_delivery import JoinedDelivery, Messenger
from edge.events.joining import Joiner
from edge.events.phones import NOBODY, Owner, Phone, PhoneBook
from edge.events.snooze import Snooze, Snoozes
from edge.net.signed import text_of
from edge.net.webpush import public_of
from edge.pipeline.phone_owners import PhoneOwners
from edge.sinks.push import PushTarget, load_or_make_key
from edge.threads.backoff import Backoff
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.config.events import NotifySettings
    from edge.events.outbox import Outbox

log = logging.getLogger(__name__)
# a phone that is taken away may be sent a message just then
ENDED_S = 2.0
# between two looks at whether the owners of phones are still there
OWNERS_S = 0.5
# a dot: a target of the program's own, see Outbox
PREFIX = ".phone-"


def joined_delivery(
    settings: NotifySettings,
    outbox: Outbox,
    messenger: Messenger,
    snoozes: Snoozes | None = None,
    may_see: Callable[[str], bool] = lambda stream: True,
) -> JoinedDelivery:
    """Messages to a person over a messenger, of the streams that it may see.

    Raises:
        ConfigError: a time zone of its quiet hours is not known.
    """
    quiet, name = _quiet(settings), messenger.name

    def is_unwanted(stream: str, kind: str) -> bool:
        return not may_see(stream) or (snoozes is not None and snoozes.is_on(name, stream, kind))

    return JoinedDelivery(
        outbox,
        messenger,
        Joiner(settings, is_unwanted),
        may_see=may_see,
        is_quiet=lambda: bool(settings.quiet) and quiet.is_on(datetime.now(timezone.utc)),
        backoff=Backoff(base_s=settings.backoff_base_s, cap_s=settings.backoff_cap_s),
        give_up_s=settings.give_up_h * 3600,
    )


def _quiet(settings: NotifySettings) -> Schedule:
    return Schedule(settings.quiet, f"notify.{settings.name}.quiet")


@dataclass(frozen=True, slots=True)
class _Served:
    """A phone, what brings it messages, and the thread of that."""

    phone: Phone
    target: PushTarget
    delivery: JoinedDelivery
    worker: Worker


class Phones:
    """The phones that take messages, each a target of the outbox: none waits for another. Any thread may call it.

    Args:
        settings: the ``[[notify]]`` table with ``push``.
        place: of the outbox; the key and the phones are kept next to it.
        snoozes: who wants to be left alone.
        owners: what the owner of a phone may see; a phone goes with its owner.

    Raises:
        ConfigError: a time zone of the quiet hours is not known.
    """

    def __init__(
        self, settings: NotifySettings, place: Path, snoozes: Snoozes, owners: PhoneOwners | None = None
    ) -> None:
        _quiet(settings)
        self._owners = owners or PhoneOwners()
        self._watch = Worker("owners of phones", self._watch_owners)
        self._settings = settings
        self._key_path = place.with_name(f"{place.stem}.push.pem")
        self._book = PhoneBook(place.with_name(f"{place.stem}.phones.secret"), settings.push_hosts)
        self._snoozes = snoozes
        self._lock = threading.Lock()
        self._outbox: Outbox | None = None
        self._served: dict[str, _Served] = {}
        self._is_running = False

    @property
    def target_names(self) -> list[str]:
        """Of the outbox, which is opened with them."""
        return [f"{PREFIX}{phone.id}" for phone in self._book.phones()]

    def key(self) -> str:
        """The public key that browsers subscribe with. Raises: SinkError: it cannot be read or made."""
        return text_of(public_of(load_or_make_key(self._key_path)))

    def start(self, outbox: Outbox) -> None:
        """Begin to deliver."""
        with self._lock:
            self._outbox, self._is_running = outbox, True
            try:
                for phone in self._book.phones():
                    self._serve(phone)
            except SinkError as error:
                log.error("%s; no phone is told anything until the next start", error)
        self._watch.start()

    def phones(self) -> list[Phone]:
        """Those that take messages."""
        return self._book.phones()

    def add(self, value: Any, owner: Owner = NOBODY) -> None:
        """Send messages to a browser from now on.

        Args:
            value: what it gives, see ``Phone.of``.
            owner: who asks for it.

        Raises:
            EdgeError: it is no subscription, of a server that is not allowed, one too many, or cannot be kept.
        """
        with self._lock:
            if self._outbox is None or not self._is_running:
                raise ConfigError("no messages are sent now; try again later")
            phone = self._book.add(value, owner)
            served = self._served.get(phone.id)
            if served is not None and served.phone == phone and served.worker.is_alive:
                return
            self._end(phone, ENDED_S)
            self._outbox.add_target(f"{PREFIX}{phone.id}")
            self._serve(phone)

    def remove(self, endpoint: str, owner: Owner | None = None) -> bool:
        """Send a browser nothing more.

        Args:
            endpoint: of the browser.
            owner: whose it must be; None: anybody's.

        Returns:
            False where it is not known, or another's.

        Raises:
            SinkError: this cannot be kept.
        """
        return self._remove(endpoint, ENDED_S, owner)

    def _remove(self, endpoint: str, wait_s: float | None, owner: Owner | None = None) -> bool:
        with self._lock:
            phone = self._book.remove(endpoint, owner)
            if phone is not None:
                self._end(phone, wait_s)
                if self._outbox is not None:
                    self._outbox.remove_target(f"{PREFIX}{phone.id}")
        return phone is not None

    def stop(self) -> None:
        """Ask all to end; what waits stays in the outbox."""
        self._watch.stop()
        with self._lock:
            self._is_running = False
            for served in self._served.values():
                served.worker.stop()
                served.target.abort()

    def join(self, deadline_s: float) -> bool:
        """Wait for their ends, after ``stop``; False if one did not end in time."""
        with self._lock:
            served = list(self._served.values())
        self._watch.join(ENDED_S)
        return all(one.worker.join(max(0.1, deadline_s - time.monotonic())) for one in served)

    def phone_of(self, target: str) -> Phone | None:
        """The phone that is a target of the outbox."""
        served = self._served.get(target.removeprefix(PREFIX))
        return None if served is None else served.phone

    def stats(self) -> dict[str, object]:
        """What all of them took together, as JSON values, and why the last attempt at one failed."""
        served = list(self._served.values())
        total: dict[str, int] = {}
        for one in served:
            for key, count in one.delivery.counters.snapshot().items():
                total[key] = total.get(key, 0) + count
        errors = [one.delivery.failing.last_error for one in served if one.delivery.failing.last_error]
        return {"phones": len(served), "error": errors[0] if errors else "", **total}

    def _serve(self, phone: Phone) -> None:
        assert self._outbox is not None
        name = f"{PREFIX}{phone.id}"
        target = PushTarget(
            name,
            phone,
            self._settings,
            load_or_make_key(self._key_path),
            lambda message: self._snoozes.offer(name, message.happened),
            self._forget,
        )
        may_see = partial(self._owners.may_see, phone.owner)
        delivery = joined_delivery(self._settings, self._outbox, target, self._snoozes, may_see)
        worker = Worker(f"phone {phone.id[:6]}", delivery.run)
        self._served = {**self._served, phone.id: _Served(phone, target, delivery, worker)}
        worker.start()

    def _end(self, phone: Phone, wait_s: float | None) -> None:
        if (served := self._served.get(phone.id)) is not None:
            served.worker.stop()
            served.target.abort()
            if wait_s is not None:
                served.worker.join(wait_s)
            self._served = {key: one for key, one in self._served.items() if key != phone.id}

    def _watch_owners(self, stopping: threading.Event) -> None:
        """Forget the phones of users who are gone, or have become others: they subscribe again when they log in."""
        while not stopping.wait(OWNERS_S):
            for phone in self._book.phones():
                if self._owners.is_gone(phone.owner):
                    log.info("a phone of %s takes no messages any more: its user is gone", phone.owner.name or "nobody")
                    with suppress(SinkError):
                        self._remove(phone.endpoint, ENDED_S, phone.owner)

    def _forget(self, phone: Phone) -> None:
        """Its push service does not know it any more. Called in its own thread."""
        # it will be told so again where this cannot be kept now
        with suppress(SinkError):
            self._remove(phone.endpoint, None)


class Messaging:
    """What the page can ask for; see ``edge.server.messages.Messaging``.

    Args:
        phones: None where no table has ``push``.
        snoozes: who is left alone.
    """

    def __init__(self, phones: Phones | None, snoozes: Snoozes) -> None:
        self.phones = phones
        self.snoozes = snoozes

    @property
    def snooze_key(self) -> bytes:
        """Signs what messages offer."""
        return self.snoozes.key

    def push_key(self) -> str | None:
        return None if self.phones is None else self.phones.key()

    def add_phone(self, value: Any, owner: Owner) -> None:
        self._some_phones().add(value, owner)

    def remove_phone(self, endpoint: str, owner: Owner | None) -> bool:
        return self._some_phones().remove(endpoint, owner)

    def phone_list(self) -> list[Phone]:
        return [] if self.phones is None else self.phones.phones()

    def offered(self, text: str) -> list[tuple[str, str]]:
        return list(self.snoozes.read(text).pairs)

    def snooze(self, text: str, hours: float) -> float:
        return self.snoozes.begin(text, hours)

    def snoozed(self, owner: Owner | None) -> list[dict[str, Any]]:
        return [asdict(one) | {"target": self._name(one)} for one in self._snoozes_of(owner)]

    def end_snooze(self, snooze_id: str, owner: Owner | None) -> bool:
        return any(one.id == snooze_id for one in self._snoozes_of(owner)) and self.snoozes.end(snooze_id)

    def _snoozes_of(self, owner: Owner | None) -> list[Snooze]:
        """Those of the phones of an owner; None: all."""
        return [one for one in self.snoozes.now() if owner is None or self._owner_of(one) == owner]

    def _owner_of(self, snooze: Snooze) -> Owner | None:
        phone = None if self.phones is None else self.phones.phone_of(snooze.target)
        return None if phone is None else phone.owner

    def _some_phones(self) -> Phones:
        if self.phones is None:
            raise ConfigError("no [[notify]] table has push = true")
        return self.phones

    def _name(self, snooze: Snooze) -> str:
        """What people call who is left alone."""
        if self.phones is None or not snooze.target.startswith(PREFIX):
            return snooze.target
        phone = self.phones.phone_of(snooze.target)
        return "" if phone is None else phone.name
