"""The file of users: who there is, with a hash of the password or token, and the roles per camera.

It is read again when it changes. One that others may read or write, or that makes no sense, lets nobody in.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.errors import ConfigError, DataError
from edge.files import parse_json, write_atomic
from edge.users.rights import ALL, ROLES, Rights

log = logging.getLogger(__name__)
MODE = 0o600
CHECK_S = 0.5
MAX_USERS = 256
MAX_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
# what a hash may cost is bounded here: verifying one that somebody made would else take any time and memory
HASH = re.compile(r"\$argon2id\$v=19\$m=(\d{1,6}),t=(\d{1,2}),p=([1-4])\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{22,128}")
MAX_KIB, MAX_TURNS = 131_072, 10
TOKEN = re.compile(r"[0-9a-f]{64}")
KEYS = {"roles", "password", "token", "generation"}


@dataclass(frozen=True, slots=True)
class User:
    """One user.

    Attributes:
        password: its Argon2id hash, empty where there is none.
        token: SHA-256 of its token in hexadecimal, empty where there is none.
        generation: sessions of another one are over.
    """

    name: str
    rights: Rights
    password: str = ""
    token: str = ""
    generation: str = ""

    def as_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        facts = {"password": self.password, "token": self.token, "generation": self.generation}
        return {"roles": dict(self.rights.roles), **{key: value for key, value in facts.items() if value}}

    def with_new_generation(self) -> User:
        """The same, of whom every session is over."""
        return replace(self, generation=secrets.token_hex(8))


class UsersFile:
    """The users of a file, as they are now. Used in one thread.

    Attributes:
        path: the file.
        problem: why nobody is let in, empty if somebody may be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._users: Mapping[str, User] = {}
        self._by_token: Mapping[str, User] = {}
        self._state: object = None
        self._checked_s = float("-inf")

    def users(self, *, is_fresh: bool = False) -> Mapping[str, User]:
        """Name → user, none where the file is wrong; it is looked at twice a second at most, unless ``is_fresh``."""
        now_s = time.monotonic()
        if is_fresh or now_s - self._checked_s >= CHECK_S:
            self._checked_s = now_s
            state = _state_of(self.path)
            # one that could not be read is tried again each time
            if state != self._state or self.problem:
                self._state = state
                self._read()
        return self._users

    def of_token(self, token: str) -> User | None:
        """Whose token this is. It is random, so what its hash is compared with tells nothing about others."""
        self.users()
        digest = token_hash(token)
        found = self._by_token.get(digest)
        return found if found is not None and hmac.compare_digest(found.token, digest) else None

    def _read(self) -> None:
        try:
            users, problem = read_users(self.path), ""
        except ConfigError as error:
            users, problem = {}, str(error)
        if problem and problem != self.problem:
            log.error("%s; nobody of it is let in", problem)
        self._users, self.problem = users, problem
        self._by_token = {user.token: user for user in users.values() if user.token}


def token_hash(token: str) -> str:
    """What is kept of a user's token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def read_users(path: Path) -> dict[str, User]:
    """The users of a file, by name.

    Raises:
        ConfigError: it cannot be read, others may read or change it, or it makes no sense.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"server.users_file: {path} cannot be read ({error.strerror}); run: edge users add") from None
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"server.users_file: {path} is no ordinary file")
        if facts.st_mode & 0o077 or facts.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"server.users_file: {path} can be read or changed by others than its owner or is not the daemon's; "
                f"expected it to be owned by its user with rights 0600, run: chmod 600 {path}"
            )
        data = os.read(handle, MAX_BYTES + 1)
    finally:
        os.close(handle)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes")
        return _users_in(parse_json(data))
    except ValueError as error:
        raise ConfigError(
            f"server.users_file: {path} is damaged ({error}); restore it, or add its users again"
        ) from None


def _users_in(value: Any) -> dict[str, User]:
    """Raises: ValueError: it makes no sense."""
    table = value.get("users") if isinstance(value, dict) else None
    if not isinstance(table, dict) or set(value) != {"users"}:
        raise ValueError('expected an object with "users"')
    if len(table) > MAX_USERS:
        raise ValueError(f"expected at most {MAX_USERS} users")
    return {name: _user(name, facts) for name, facts in table.items()}


def _user(name: str, facts: Any) -> User:
    if not NAME.fullmatch(name):
        raise ValueError("a name is expected to be of 1 to 64 letters, digits and . _ @ + -")
    if not isinstance(facts, dict) or not facts.keys() <= KEYS:
        raise ValueError(f"user {name}: expected {', '.join(sorted(KEYS))}")
    texts = {key: facts.get(key, "") for key in ("password", "token", "generation")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"user {name}: expected texts")
    if texts["password"] and not is_bearable(texts["password"]):
        raise ValueError(f"user {name}: the password is no Argon2id hash of bounded cost")
    if texts["token"] and not TOKEN.fullmatch(texts["token"]):
        raise ValueError(f"user {name}: the token is no SHA-256")
    return User(name, rights_of(facts.get("roles"), f"user {name}"), **texts)


def is_bearable(password_hash: str) -> bool:
    """Whether this is an Argon2id hash that takes bounded time and memory."""
    match = HASH.fullmatch(password_hash)
    return match is not None and 8 <= int(match[1]) <= MAX_KIB and 1 <= int(match[2]) <= MAX_TURNS


def rights_of(roles: Any, where: str) -> Rights:
    """From a table camera → role. Raises: ValueError: it is none."""
    if not isinstance(roles, dict) or not roles:
        raise ValueError(f"{where}: expected roles, camera = role; {ALL} stands for every other camera")
    for camera, role in roles.items():
        if not isinstance(camera, str) or not camera or role not in ROLES:
            raise ValueError(f"{where}: expected a role of {', '.join(ROLES)} for {camera!r}, found {role!r}")
    return Rights(dict(roles))


@contextmanager
def changed_users(path: Path) -> Iterator[dict[str, User]]:
    """Change the users of a file: what the block leaves in the table is written, with the rights 0600.

    Raises:
        ConfigError: the file is there and is wrong.
        DataError: it cannot be written.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{path.parent}: cannot be read ({error.strerror})") from None
    try:
        # two at a time would lose what the first has changed
        fcntl.flock(folder, fcntl.LOCK_EX)
        is_there = path.exists()
        users = _for_root(path) if is_there else {}
        yield users
        if len(users) > MAX_USERS:
            raise DataError(f"{path}: expected at most {MAX_USERS} users")
        owner = path.stat() if is_there else os.fstat(folder)
        text = json.dumps({"users": {name: user.as_json() for name, user in users.items()}}, indent=1) + "\n"
        write_atomic(path, text, MODE)
        if os.geteuid() == 0:
            # the daemon, which reads it, is another user
            os.chown(path, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); run as the daemon's user or root") from None
    finally:
        os.close(folder)


def _for_root(path: Path) -> dict[str, User]:
    """The users of a file whose owner root need not be."""
    if os.geteuid() == 0:
        facts = path.stat()
        if not facts.st_mode & 0o077 and stat.S_ISREG(facts.st_mode):
            try:
                return _users_in(parse_json(path.read_bytes()))
            except ValueError as error:
                raise ConfigError(f"{path} is damaged ({error}); restore it, or remove it") from None
    return read_users(path)


def _state_of(path: Path) -> object:
    try:
        facts = path.stat()
    except OSError as error:
        return error.errno
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_size
