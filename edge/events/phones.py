"""The phones and browsers that take messages (Web Push), and what each has given for that, in a bounded file."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.addresses.printable import one_line
from edge.errors import ConfigError, SinkError
from edge.files import load_object, write_atomic
from edge.net.signed import data_of
from edge.net.webpush import AUTH_BYTES, is_key

log = logging.getLogger(__name__)
MAX_PHONES = 32
# of one user, so that nobody takes the places of all others
MAX_OF_USER = 8
MAX_ENDPOINT_CHARS = 1000
MAX_NAME_CHARS = 64
_ENDPOINT = re.compile(r"https://[A-Za-z0-9.:\[\]_-]+/[\x21-\x7e]*")


@dataclass(frozen=True, slots=True)
class Owner:
    """The named user whom something belongs to; without a name it is of whoever has the device's own tokens.

    Attributes:
        generation: of the user; with another one it is not the same any more (see ``edge.users.file.User``).
    """

    name: str = ""
    generation: str = ""


NOBODY = Owner()


@dataclass(frozen=True, slots=True)
class Phone:
    """A subscription of a browser.

    Attributes:
        endpoint: the address that its push service takes messages at; printed nowhere, only its ``host``.
        p256dh, auth: its public key and secret, in base64 for addresses.
        name: what it calls itself.
        owner: who has subscribed it.
    """

    endpoint: str
    p256dh: str
    auth: str
    name: str = ""
    owner: Owner = NOBODY

    @classmethod
    def of(cls, value: Any, hosts: Sequence[str]) -> Phone:
        """From what a browser gives (``PushSubscription.toJSON``), with a ``name``.

        Args:
            value: JSON of a stranger.
            hosts: servers that may be pushed to.

        Raises:
            ConfigError: it is none, or of another server; the sentence repeats nothing of it but the server.
        """
        match value:
            case {"endpoint": str(endpoint), "keys": {"p256dh": str(key), "auth": str(auth)}, **rest}:
                name = rest.get("name", "")
            case _:
                raise ConfigError('expected {"endpoint", "keys": {"p256dh", "auth"}}, as the browser gives it')
        if len(endpoint) > MAX_ENDPOINT_CHARS or not _ENDPOINT.fullmatch(endpoint):
            raise ConfigError("endpoint: expected an https address")
        host = host_in(endpoint)
        if not any(_fits(host, one) for one in hosts):
            raise ConfigError(f"endpoint: {host or 'this server'} is none of push_hosts: {', '.join(hosts)}")
        if not _is_right(key, auth):
            raise ConfigError("keys: expected the public key and the secret of a browser")
        return cls(endpoint, key, auth, one_line(name)[:MAX_NAME_CHARS] if isinstance(name, str) else "")

    @property
    def id(self) -> str:
        return hashlib.sha256(self.endpoint.encode()).hexdigest()[:16]

    @property
    def host(self) -> str:
        return host_in(self.endpoint)


class PhoneBook:
    """Kept in a file that only its owner reads. Any thread may call any method.

    Args:
        path: the file; a damaged one is set aside.
        hosts: servers that may be pushed to; phones of others are left out.
    """

    def __init__(self, path: Path, hosts: Sequence[str]) -> None:
        self._path = path
        self._hosts = hosts
        self._lock = threading.Lock()
        self._phones: dict[str, Phone] = {}
        for value in _listed(load_object(path)):
            try:
                phone = replace(Phone.of(value, hosts), owner=_owner_in(value))
            except ConfigError as error:
                log.warning("%s: a phone is left out: %s", path.name, error)
            else:
                self._phones[phone.id] = phone

    def phones(self) -> list[Phone]:
        with self._lock:
            return list(self._phones.values())

    def add(self, value: Any, owner: Owner = NOBODY) -> Phone:
        """Keep what a browser gives; one that is there is renewed, and belongs to who asks now.

        Raises:
            ConfigError: it is none, or there are too many.
            SinkError: it cannot be written.
        """
        phone = replace(Phone.of(value, self._hosts), owner=owner)
        with self._lock:
            others = [one for one in self._phones.values() if one.id != phone.id]
            if len(others) >= MAX_PHONES:
                raise ConfigError(f"{MAX_PHONES} phones take messages already; switch another one off")
            if owner.name and sum(one.owner.name == owner.name for one in others) >= MAX_OF_USER:
                raise ConfigError(f"{MAX_OF_USER} phones of {owner.name} take messages already; switch another one off")
            before = dict(self._phones)
            self._phones[phone.id] = phone
            if before != self._phones:
                self._write(before)
        return phone

    def remove(self, endpoint: str, owner: Owner | None = None) -> Phone | None:
        """Forget it; None where it is not known, or not this owner's. Raises: SinkError: this cannot be written."""
        with self._lock:
            before = dict(self._phones)
            found = self._phones.get(Phone(endpoint, "", "").id)
            if found is None or owner not in (None, found.owner):
                return None
            del self._phones[found.id]
            self._write(before)
        return found

    def _write(self, before: dict[str, Phone]) -> None:
        text = json.dumps({"phones": [_as_given(phone) for phone in self._phones.values()]}, indent=1)
        try:
            write_atomic(self._path, text + "\n", mode=0o600)
        except OSError as error:
            self._phones = before
            raise SinkError(f"{self._path}: the phones cannot be written ({error.strerror})") from None


def host_in(endpoint: str) -> str:
    """The server of an address; empty where it is none, or names a user."""
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError:
        return ""
    return "" if parts.username is not None else (parts.hostname or "")


def _fits(host: str, allowed: str) -> bool:
    """``*.NAME`` stands for everything below NAME."""
    allowed = allowed.lower().strip("[]")
    return bool(host) and (host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed)


def _is_right(key: str, auth: str) -> bool:
    try:
        return len(key) < 200 and len(auth) < 200 and is_key(data_of(key)) and len(data_of(auth)) == AUTH_BYTES
    except ValueError:
        return False


def _as_given(phone: Phone) -> Mapping[str, Any]:
    facts = asdict(phone)
    keys = {key: facts[key] for key in ("p256dh", "auth")}
    return {"endpoint": phone.endpoint, "keys": keys, "name": phone.name, "owner": facts["owner"]}


def _owner_in(kept: Mapping[str, Any]) -> Owner:
    """Of a phone in the file; what makes no sense is of a user who is not there."""
    match kept.get("owner", {"name": "", "generation": ""}):
        case {"name": str(name), "generation": str(generation)}:
            return Owner(name, generation)
    return Owner("?", "?")


def _listed(kept: Mapping[str, Any]) -> list[Any]:
    phones = kept.get("phones", [])
    return phones[:MAX_PHONES] if isinstance(phones, list) else []
