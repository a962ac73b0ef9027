"""A decoder process connects to its camera, and to nobody that the camera sends it to.

FFmpeg follows redirects of RTSP and HTTP and the addresses in playlists, and takes an RTSP password along. So the child
has the kernel ask its parent about each ``connect`` (seccomp's user notification, Linux 5.0): to the hosts of the
address, to those of ``allow_hosts``, to name servers and proxies it is let through, else it fails.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import os
import platform
import select
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from edge.addresses.uris import host_of

# machine -> audit's number of it, connect, seccomp (linux/audit.h, asm/unistd.h)
NUMBERS = {"x86_64": (0xC000003E, 42, 317), "aarch64": (0xC00000B7, 203, 277)}
PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER, NEW_LISTENER = 1, 8
RET_ALLOW, RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
# BPF: load a word, jump if equal, return (linux/bpf_common.h)
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
# struct seccomp_notif: id, pid, flags, then nr, arch, instruction and six arguments
ASKED, ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
NOTIF_RECV, NOTIF_SEND, NOTIF_CONTINUE = 0xC0502100, 0xC0182101, 1
EACCES = 13
# what the file of the questions is called in /proc
QUESTIONS = "anon_inode:seccomp notify"
NAME_SERVERS, DNS_PORT = Path("/etc/resolv.conf"), 53
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
ANY = "*"
# names of a camera that moves are looked up again
RESOLVE_EVERY_S = 1.0


def raise_fence() -> int | None:
    """Have each ``connect`` of this thread and of those that it starts asked about from now on.

    Returns:
        The file on which the questions come, for the parent; None where this kernel or container has no such thing.
    """
    machine = NUMBERS.get(platform.machine())
    if machine is None:
        return None
    arch, connect, seccomp = machine
    steps = [
        (LOAD, 0, 0, 4),
        (JUMP_EQUAL, 0, 2, arch),
        (LOAD, 0, 0, 0),
        (JUMP_EQUAL, 1, 0, connect),
        (RETURN, 0, 0, RET_ALLOW),
        (RETURN, 0, 0, RET_USER_NOTIF),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return None
    fd: int = libc.syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER, program)
    return fd if fd >= 0 else None


class Fence:
    """The parent's side: answers the child's questions. Used by one thread.

    Attributes:
        refused: where the child was not let through last, ``10.0.0.5:80``; empty where all was well.
    """

    def __init__(self, fd: int, uri: str, allow_hosts: Sequence[str]) -> None:
        """Args: where the questions come (closed with this), the address, and further hosts, ``*`` for all."""
        self.refused = ""
        self._fd = fd
        proxies = (os.environ.get(name) or os.environ.get(name.upper(), "") for name in PROXIES)
        hosts = {host_of(uri), *allow_hosts, *(host_of(proxy) for proxy in proxies)}
        self._hosts = sorted(host.strip("[]") for host in hosts if host)
        self._known: set[str] = set()
        self._resolved_s = -RESOLVE_EVERY_S
        self._waiting = select.poll()
        self._waiting.register(fd, select.POLLIN)

    def serve(self, channel: socket.socket, limit_s: float) -> None:
        """Answer until something comes on the channel, or the time is over.

        Raises:
            OSError: what the child gave is no such file.
        """
        self._waiting.register(channel, select.POLLIN)
        deadline = time.monotonic() + limit_s
        while (left_s := deadline - time.monotonic()) > 0:
            ready = dict(self._waiting.poll(left_s * 1000))
            if ready.get(self._fd, 0) & select.POLLIN:
                self._answer()
            elif self._fd in ready:
                # nobody is left who could ask
                self._waiting.unregister(self._fd)
            if channel.fileno() in ready:
                return

    def close(self) -> None:
        """Whoever still asks is refused."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _answer(self) -> None:
        asked = bytearray(ASKED.size)
        try:
            fcntl.ioctl(self._fd, NOTIF_RECV, asked)
            number, pid, *_ = facts = ASKED.unpack(asked)
            is_open = self._lets_through(pid, facts[7], facts[8])
            error, flags = (0, NOTIF_CONTINUE) if is_open else (-EACCES, 0)
            fcntl.ioctl(self._fd, NOTIF_SEND, bytearray(ANSWER.pack(number, 0, error, flags)))
        except FileNotFoundError:
            # the thread that asked has ended meanwhile
            return

    def _lets_through(self, pid: int, where: int, size: int) -> bool:
        try:
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                memory.seek(where)
                place = address_in(memory.read(min(size, 128)))
        except (OSError, ValueError):
            # what the kernel will refuse too, or a machine on which a parent may not look into its child
            return True
        if place is None or self._may(*place):
            return True
        self.refused = f"{place[0]}:{place[1]}"
        return False

    def _may(self, host: str, port: int) -> bool:
        if ANY in self._hosts or (port == DNS_PORT and host in name_servers()):
            return True
        if host not in self._known and time.monotonic() - self._resolved_s >= RESOLVE_EVERY_S:
            self._known = {address for name in self._hosts for address in addresses_of(name)}
            self._resolved_s = time.monotonic()
        # port 0: the C library asks which of its own addresses it would use; nothing is sent
        return host in self._known or port == 0


def address_in(data: bytes) -> tuple[str, int] | None:
    """Host and port of a ``struct sockaddr``; None where it is none of IP.

    Raises:
        ValueError: it is cut off.
    """
    family = int.from_bytes(data[:2], "little")
    if family == socket.AF_INET:
        raw = data[4:8]
    elif family == socket.AF_INET6:
        raw = data[8:24]
    else:
        return None
    return str(unmapped(ipaddress.ip_address(raw))), int.from_bytes(data[2:4], "big")


def unmapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """``::ffff:10.0.0.5`` is 10.0.0.5."""
    return getattr(address, "ipv4_mapped", None) or address


def addresses_of(name: str) -> set[str]:
    """The addresses of a host; none where it is not known."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {str(unmapped(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]))) for entry in found}


def name_servers() -> set[str]:
    """Of this machine."""
    try:
        lines = NAME_SERVERS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    words = [line.split() for line in lines]
    found = {word[1].partition("%")[0] for word in words if len(word) > 1 and word[0] == "nameserver"}
    # what the C library takes where none is named
    return found or {"127.0.0.1", "::1"}
