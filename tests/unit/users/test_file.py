"""The file of users: what it lets in, and that a wrong one lets nobody in."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.users.file import User, UsersFile, changed_users, read_users, token_hash
from edge.users.passwords import hash_of, is_right
from edge.users.rights import ROLES, Rights

ANNA = User("anna", Rights({"*": "view", "door": "operate", "bedroom": "none"}), token=token_hash("t" * 43))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with changed_users(tmp_path / "users.json") as users:
        users["anna"] = ANNA
    return tmp_path / "users.json"


def test_what_is_written_is_read_and_only_its_owner_may(path: Path) -> None:
    assert read_users(path) == {"anna": ANNA}
    assert path.stat().st_mode & 0o777 == 0o600
    with changed_users(path) as users:
        del users["anna"]
    assert read_users(path) == {}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o622, 0o777])
def test_rights_for_others_are_refused_in_one_sentence(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigError, match=r"users.json can be read or changed by others .*run: chmod 600"):
        read_users(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"users": []}',
        b'{"users": {}, "more": 1}',
        b'{"users": {"../x": {"roles": {"*": "view"}}}}',
        b'{"users": {"anna": {}}}',
        b'{"users": {"anna": {"roles": {}}}}',
        b'{"users": {"anna": {"roles": {"*": "root"}}}}',
        b'{"users": {"anna": {"roles": {"*": "view"}, "passwort": "x"}}}',
        b'{"users": {"anna": {"roles": {"*": "view"}, "password": "plain text"}}}',
        b'{"users": {"anna": {"roles": {"*": "view"}, "password": 1}}}',
        b'{"users": {"anna": {"roles": {"*": "view"}, "token": "x"}}}',
        b'{"users": {"anna": {"roles": {"*": "view"}, "password": "$argon2id$v=19$m=999999,t=2,p=1$'
        + b"A" * 22
        + b"$"
        + b"A" * 43
        + b'"}}}',
        json.dumps({"users": {f"u{n}": {"roles": {"*": "view"}} for n in range(257)}}).encode(),
        b" " * (1 << 20) + b"  ",
    ],
)
def test_rotten_content_is_refused_in_one_sentence_and_nobody_gets_in(path: Path, content: bytes) -> None:
    users = UsersFile(path)
    assert set(users.users()) == {"anna"}
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"server.users_file: .*users.json is damaged \(.*\); restore it"):
        read_users(path)
    users._checked_s = 0
    assert users.users() == {} and users.of_token("t" * 43) is None and users.problem


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.json"
    path.write_bytes(noise)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        read_users(path)


@pytest.mark.parametrize("kind", ["folder", "fifo", "nothing"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd"
    if kind == "folder":
        path.mkdir(0o700)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    begin_s = time.monotonic()
    with pytest.raises(ConfigError, match=r"server.users_file"):
        read_users(path)
    assert time.monotonic() - begin_s < 1


def test_a_change_counts_within_a_second_and_a_repaired_file_too(path: Path) -> None:
    users = UsersFile(path)
    assert users.users()["anna"].rights.on("door") == "operate"

    def becomes(check: Any) -> None:
        until_s = time.monotonic() + 1
        while not check():
            assert time.monotonic() < until_s
            time.sleep(0.02)

    with changed_users(path) as table:
        table["anna"] = User("anna", Rights({"*": "none"}))
    becomes(lambda: users.users()["anna"].rights.on("door") == "none")
    path.chmod(0o644)
    becomes(lambda: users.users() == {})
    path.chmod(0o600)
    becomes(lambda: set(users.users()) == {"anna"})


def test_a_named_camera_counts_before_all_of_them() -> None:
    rights = ANNA.rights
    assert [rights.on(camera) for camera in ("door", "bedroom", "new")] == ["operate", "none", "view"]
    assert rights.seen(["door", "bedroom", "new"]) == ["door", "new"]
    assert not rights.everywhere("view") and Rights({"*": "operate", "door": "admin"}).everywhere("operate")
    assert not Rights({"door": "admin"}).may("view", "yard")
    assert not Rights({"door": "admin"}).everywhere("view")


@given(st.dictionaries(st.sampled_from(["*", "a", "b"]), st.sampled_from(ROLES), min_size=1))
def test_what_holds_everywhere_holds_for_each(roles: dict[str, Any]) -> None:
    rights = Rights(roles)
    for role in ROLES:
        if rights.everywhere(role):
            assert all(rights.may(role, camera) for camera in ("a", "b", "c"))


def test_a_password_is_kept_as_argon2id_of_bounded_cost() -> None:
    hashed = hash_of("correct horse battery")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$") and "correct" not in hashed
    assert is_right(hashed, "correct horse battery")
    assert not any(is_right(one, word) for one in (hashed, "") for word in ("", "nobody", "correct horse"))
    assert not is_right("$argon2id$broken", "x")
