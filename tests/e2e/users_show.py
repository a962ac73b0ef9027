"""A live server with two cameras and named users, for the tests of logins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from daemon_process import TOKEN, VIEW_TOKEN
from e2e.live_show import Camera

from edge.server import LiveServer
from edge.server.access import Access
from edge.server.board import LiveBoard
from edge.server.proxies import NO_PROXIES, Proxies
from edge.users.file import User, changed_users, token_hash
from edge.users.passwords import hash_of
from edge.users.rights import Rights

PASSWORD = "correct horse battery"
USER_TOKEN = "token-of-doris-0123456789-0123456789-012345"
CAMERAS = ("door", "attic")
ROLES: dict[str, dict[str, Any]] = {
    "anna": {"*": "admin"},
    "olga": {"*": "operate"},
    "vera": {"*": "view"},
    "doris": {"door": "view"},
    "oscar": {"door": "operate"},
    "adam": {"door": "admin"},
    "nils": {"*": "none"},
}


@cache
def hashed() -> str:
    return hash_of(PASSWORD)


def write_users(path: Path) -> Path:
    with changed_users(path) as users:
        for name, roles in ROLES.items():
            token = token_hash(USER_TOKEN) if name == "doris" else ""
            users[name] = User(name, Rights(roles), hashed(), token).with_new_generation()
    return path


@dataclass
class UsersShow:
    """What runs; ``folder`` has users.json and audit.jsonl."""

    folder: Path
    port: int
    cameras: list[Camera]
    server: LiveServer
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def users(self) -> Path:
        return self.folder / "users.json"

    @contextmanager
    def client(self, name: str = "", password: str = PASSWORD, **options: Any) -> Iterator[httpx.Client]:
        """Of somebody who has logged in, as a browser that says where it is."""
        headers = {"Origin": self.url}
        # the certificate is the test's own
        with httpx.Client(base_url=self.url, headers=headers, timeout=20, verify=False, **options) as client:
            if name:
                answer = log_in(client, name, password)
                assert answer.status_code == 303, answer.text
            yield client


def log_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    return client.post("/login", data={"name": name, "password": password})


@contextmanager
def users_show(
    folder: Path,
    *,
    has_tokens: bool = True,
    proxies: Proxies = NO_PROXIES,
    tls: tuple[Path, Path] | None = None,
    max_peers: int = 0,
    **access: Any,
) -> Iterator[UsersShow]:
    write_users(folder / "users.json")
    board = LiveBoard()
    cameras = [Camera(board, name) for name in CAMERAS]
    tokens = (TOKEN, VIEW_TOKEN) if has_tokens else (None, None)
    who = Access(*tokens, users_file=folder / "users.json", proxies=proxies, **access)
    server = LiveServer(
        board,
        port=0,
        access=who,
        tls=tls,
        max_peers=max_peers,
        stats=lambda: {"streams": {camera.name: camera.stats() for camera in cameras}},
    )
    _, port = server.start()
    try:
        yield UsersShow(folder, port, cameras, server, "https" if tls else "http")
    finally:
        server.stop()
