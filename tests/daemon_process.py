"""A real daemon as a child process, with a NOTIFY_SOCKET and its API, for the tests of the daemon."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from waiting import source_of

COMMAND = [sys.executable, "-c", "from edge.cli import main; main()"]
SCENE = "synthetic://street?seed=1&size=160x96&fps=20&objects=2&live=1"
TOKEN = "operate-token-0123456789"
VIEW_TOKEN = "view-token-0123456789abc"


@dataclass
class Daemon:
    """A running ``edge run`` and what it has said so far."""

    process: subprocess.Popen[str]
    notices: socket.socket
    output: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def text(self) -> str:
        return "".join(self.output)

    def client(self, token: str = TOKEN, **options: Any) -> httpx.Client:
        # nobody's certificates need be read, which takes 29 ms
        options = {"timeout": 20, "verify": False, **options}
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, **options)

    def receive(self, timeout_s: float) -> list[str]:
        """The messages to systemd that come within this time."""
        deadline = time.monotonic() + timeout_s
        found = []
        while (left_s := deadline - time.monotonic()) > 0 and select.select([self.notices], [], [], left_s)[0]:
            found.append(self.notices.recv(4096).decode())
        self.messages += found
        return found

    def wait_for(self, message: str, timeout_s: float = 30) -> None:
        """Wait for a message to systemd."""
        deadline = time.monotonic() + timeout_s
        while not any(message in seen for seen in self.messages):
            in_time = time.monotonic() < deadline
            assert in_time, (
                f"time limit: {message} did not come in {timeout_s:g} s; so far {self.messages[-5:]}\n{self.text}"
            )
            is_running = self.process.poll() is None
            # what it said before its end is heard first
            assert self.hear(0.2) or is_running, self.text

    def hear(self, timeout_s: float) -> bool:
        """Take one message to systemd, if there is one within this time."""
        if not select.select([self.notices], [], [], timeout_s)[0]:
            return False
        self.messages.append(self.notices.recv(4096).decode())
        return True

    def until(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            in_time = time.monotonic() < deadline
            assert in_time, f"time limit: not within {timeout_s:g} s: {source_of(condition)}\n{self.text}"
            assert self.process.poll() is None, self.text
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def daemon(
    folder: Path, config: str, *, arguments: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> Iterator[Daemon]:
    """Run ``edge run edge.toml`` in a folder until the block ends."""
    path = folder / "edge.toml"
    path.write_text(config)
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(address)
        process = subprocess.Popen(
            [*COMMAND, *arguments, "run", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, "NOTIFY_SOCKET": address, "OMP_NUM_THREADS": "1", **(env or {})},
        )
        running = Daemon(process, notices)
        reader = threading.Thread(target=lambda: _read(process, running), daemon=True)
        reader.start()
        try:
            yield running
        finally:
            # a stopped process takes no other signal
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            reader.join(5)
    Path(address).unlink(missing_ok=True)


def _read(process: subprocess.Popen[str], running: Daemon) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        running.output.append(line)
        found = re.search(r"live page: (https?://\S+?)/?$", line.strip())
        if found:
            running.url = found[1]


def config_of(model: Path, streams: str = "", server: str = "", more: str = "") -> str:
    """A configuration with one small model and, unless others are given, one synthetic camera."""
    own = f'[[streams]]\nname = "door"\nsource = "{SCENE}"\n'
    return (
        f'{more}\n[model]\npath = "{model}"\nthreads = 1\n{streams or own}\n'
        f"[server]\nenabled = true\nport = 0\n{server}\n"
    )


def with_tokens(folder: Path, more: str = "") -> str:
    """Keys of [server] that ask for tokens."""
    (folder / "token").write_text(TOKEN)
    (folder / "view").write_text(VIEW_TOKEN)
    return f'token_file = "{folder}/token"\nview_token_file = "{folder}/view"\n{more}'


def gate_of(pid: int) -> int:
    """The process number of the gate that a process has started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and b"edge.server.gate_process" in command:
            return int(path.parent.name)
    return 0
