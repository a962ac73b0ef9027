"""The process of a capture child, the spare one that waits where only its opening failed, and those begun ahead.

A camera that is off is tried again and again: the child that was refused is asked again, for a new process costs
hundreds of milliseconds of processor time, and the camera would be back later by as much. For the same reason a process
that may have to take over cameras at once has some ready.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import deque
from contextlib import ExitStack, suppress

from edge.sources.isolation.fence import Fence
from edge.threads.python_process import child_environment, python_command

# between two looks at whether the pipeline stops
POLL_S = 0.1
# after so many attempts a fresh process takes over, whatever FFmpeg may have leaked
MAX_OPENINGS = 200
_ahead: deque[ChildProcess] = deque()


class ChildProcess:
    """A started capture child. Used by one thread.

    Attributes:
        channel: the socket to it.
        num_openings: how often it was asked to open an address.
        fence: answers whom it may connect to, where it asks.
    """

    def __init__(self) -> None:
        """Raises: OSError: there are too many files or processes, or too little memory."""
        self.num_openings = 0
        self.fence: Fence | None = None
        with ExitStack() as undo:
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.enter_context(self.channel)
            with theirs:
                self._process = _start(theirs)
            undo.pop_all()
        self.channel.settimeout(POLL_S)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and reap it; may be called twice."""
        if self.is_alive:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self.fence is not None:
            self.fence.close()

    def death(self) -> str:
        """Why it is gone, for people."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "the decoder process closed its end"
        if code < 0:
            return f"the decoder process was ended by {signal.Signals(-code).name}"
        return f"the decoder process ended with code {code}"


def _start(channel: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        python_command("edge.sources.isolation.child", str(channel.fileno()), str(os.getpid())),
        pass_fds=(channel.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # FFmpeg prints addresses with their passwords
        stderr=subprocess.DEVNULL,
        env=child_environment({"OMP_NUM_THREADS": "1"}),
    )


class SpareChild:
    """Keeps at most one child between two attempts at one stream. Used by one thread."""

    def __init__(self) -> None:
        self._child: ChildProcess | None = None

    def take(self) -> ChildProcess:
        """The child that was kept, if it lives, else a new one. Raises: OSError: it cannot be started."""
        child, self._child = self._child, None
        if child is None or not child.is_alive:
            if child is not None:
                _end(child)
            child = _begun_ahead() or ChildProcess()
        child.num_openings += 1
        return child

    def keep(self, child: ChildProcess) -> None:
        """Keep a child that waits for its next request; one that was asked often enough is ended."""
        if child.num_openings >= MAX_OPENINGS:
            _end(child)
        else:
            self._child = child

    def close(self) -> None:
        """End what is kept; may be called twice."""
        child, self._child = self._child, None
        if child is not None:
            _end(child)


def begin_ahead(count: int) -> None:
    """Have children ready for the next openings. They end with the thread that calls.

    Raises:
        OSError: there are too many files or processes, or too little memory.
    """
    for _ in range(count):
        _ahead.append(ChildProcess())


def _begun_ahead() -> ChildProcess | None:
    with suppress(IndexError):
        while True:
            child = _ahead.popleft()
            if child.is_alive:
                return child
            _end(child)
    return None


def _end(child: ChildProcess) -> None:
    child.kill()
    child.channel.close()
