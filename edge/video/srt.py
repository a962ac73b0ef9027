"""SRT (Secure Reliable Transport) through the system's libsrt: PyAV from PyPI is built without it.

One connection carries an MPEG transport stream as FFmpeg does it, with FFmpeg's names for the address's parameters:
``srt://HOST:PORT?mode=caller&passphrase=…&streamid=…&latency=MICROSECONDS``.
"""

from __future__ import annotations

import atexit
import ctypes
import ctypes.util
import socket
import struct
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# what live mode sends in one datagram: seven packets of a transport stream
PAYLOAD_BYTES = 1316
PACKET_BYTES = 188
_NAMES = ("srt-gnutls", "srt-openssl", "srt")
_ERROR = -1
_LOG_CRITICAL = 2
_ACCEPT_PAUSE_S = 0.05
# SRT_SOCKOPT of srt.h
_RCVSYN, _SNDTIMEO, _RCVTIMEO, _SENDER, _LATENCY, _PASSPHRASE, _PBKEYLEN = 2, 13, 14, 21, 23, 26, 27
_CONNTIMEO, _STREAMID = 36, 46
# SRT_EASYNCRCV, SRT_ETIMEOUT and SRT_ECONNLOST of srt.h
_NOBODY_YET, _TIMED_OUT, _LOST = 6002, 6003, 2001
# the handshake carries milliseconds in 16 bits
_MAX_LATENCY_MS = 65_535
# parameters that other tools write and that say what is done here anyway
_IGNORED = ("pkt_size", "payload_size", "transtype", "connect_timeout", "timeout")


class SrtError(OSError):
    """Why a connection cannot be had or is lost; the text holds no secret."""

    def __init__(self, text: str) -> None:
        super().__init__(5, text)


class SrtStream:
    """One connection as a file: ``read`` or ``write``, then ``close``.

    Args:
        address: ``srt://…``; ``mode=listener`` waits to be called, on every interface where the host is empty.
        timeout_s: limit of each read and write.
        connect_timeout_s: limit of connecting; None: the same.
        is_sender: whether this end writes.

    Raises:
        SrtError: libsrt is missing, the address is wrong, or there is no connection in time.
    """

    def __init__(
        self, address: str, *, timeout_s: float, is_sender: bool, connect_timeout_s: float | None = None
    ) -> None:
        self._library = _library()
        self._rest = b""
        split, parameters = _parsed(address)
        connect_s = timeout_s if connect_timeout_s is None else connect_timeout_s
        limits = {_CONNTIMEO: connect_s, _SNDTIMEO: timeout_s, _RCVTIMEO: timeout_s}
        options = {_SENDER: is_sender, **_milliseconds(limits), **_options(parameters)}
        if parameters.get("mode", "caller") == "listener":
            self._socket = self._answered(_endpoint(split.hostname or "", split.port), options, connect_s)
        else:
            self._socket = self._called(_endpoint(split.hostname or "", split.port), options)

    def read(self, size: int = PAYLOAD_BYTES) -> bytes:
        """The next datagram, empty at the end. Raises: SrtError: nothing came in time."""
        buffer = ctypes.create_string_buffer(max(size, PAYLOAD_BYTES))
        count = self._library.srt_recvmsg(self._socket, buffer, len(buffer))
        if count >= 0:
            return buffer.raw[:count]
        if self._library.srt_getlasterror(None) == _LOST:
            return b""
        raise self._failure()

    def write(self, data: bytes) -> int:
        """Send whole packets of a transport stream; a torn one waits for its rest. Raises: SrtError: it is lost."""
        stream = self._rest + bytes(data)
        whole = len(stream) - len(stream) % PACKET_BYTES
        self._rest = stream[whole:]
        for start in range(0, whole, PAYLOAD_BYTES):
            part = stream[start : min(start + PAYLOAD_BYTES, whole)]
            if self._library.srt_sendmsg(self._socket, part, len(part), -1, 1) == _ERROR:
                raise self._failure()
        return len(data)

    def close(self) -> None:
        """End the connection. May be called twice, and while another thread reads."""
        self._library.srt_close(self._socket)

    def _called(self, endpoint: bytes, options: Mapping[int, Any]) -> int:
        made = self._made(options)
        if self._library.srt_connect(made, endpoint, len(endpoint)) != _ERROR:
            return made
        reason = self._library.srt_rejectreason_str(self._library.srt_getrejectreason(made)).decode()
        error = self._failure()
        self._library.srt_close(made)
        if "Unknown" in reason:
            raise error
        raise SrtError(f"{error.strerror} ({reason})")

    def _answered(self, endpoint: bytes, options: Mapping[int, Any], timeout_s: float) -> int:
        listener = self._made({**options, _RCVSYN: False})
        try:
            if self._library.srt_bind(listener, endpoint, len(endpoint)) == _ERROR:
                raise self._failure()
            if self._library.srt_listen(listener, 1) == _ERROR:
                raise self._failure()
            deadline_s = time.monotonic() + timeout_s
            while (caller := int(self._library.srt_accept(listener, None, None))) == _ERROR:
                if self._library.srt_getlasterror(None) != _NOBODY_YET:
                    raise self._failure()
                if time.monotonic() > deadline_s:
                    raise SrtError(f"nobody has called within {timeout_s:g} s")
                time.sleep(_ACCEPT_PAUSE_S)
        finally:
            self._library.srt_close(listener)
        self._set(caller, {_RCVSYN: True})
        return caller

    def _made(self, options: Mapping[int, Any]) -> int:
        made = int(self._library.srt_create_socket())
        if made == _ERROR:
            raise self._failure()
        try:
            self._set(made, options)
        except SrtError:
            self._library.srt_close(made)
            raise
        return made

    def _set(self, target: int, options: Mapping[int, Any]) -> None:
        for option, value in options.items():
            data = (
                value.encode()
                if isinstance(value, str)
                else struct.pack("?" if isinstance(value, bool) else "i", value)
            )
            if self._library.srt_setsockflag(target, option, data, len(data)) == _ERROR:
                raise self._failure()

    def _failure(self) -> SrtError:
        if self._library.srt_getlasterror(None) == _TIMED_OUT:
            return SrtError("nothing was sent or received in time")
        return SrtError(self._library.srt_getlasterror_str().decode(errors="replace").rstrip("."))


@cache
def _library() -> Any:
    """libsrt, started. Raises: SrtError: it is not installed."""
    for name in _NAMES:
        path = ctypes.util.find_library(name)
        if path:
            break
    else:
        raise SrtError("SRT needs the system's libsrt: apt install libsrt1.5-gnutls (ffmpeg brings it too)")
    library = ctypes.CDLL(path)
    for function in ("srt_getlasterror_str", "srt_rejectreason_str"):
        getattr(library, function).restype = ctypes.c_char_p
    library.srt_startup()
    library.srt_setloglevel(_LOG_CRITICAL)
    atexit.register(library.srt_cleanup)
    return library


def _parsed(address: str) -> tuple[Any, dict[str, str]]:
    """The parts of an address and its parameters. Raises: SrtError: it names no port."""
    # a raw # is ordinary in a stream id, and no fragment
    place, _, query = address.partition("?")
    try:
        split = urlsplit(place)
        port = split.port
    except ValueError:
        port = None
    if port is None:
        raise SrtError("expected an address with a port, srt://HOST:PORT")
    parameters = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
    return split, parameters


def _milliseconds(limits_s: Mapping[int, float]) -> dict[int, int]:
    return {option: round(seconds * 1000) for option, seconds in limits_s.items()}


def _options(parameters: Mapping[str, str]) -> dict[int, Any]:
    """Socket options of an address's parameters. Raises: SrtError: one is unknown or has a wrong value."""
    options: dict[int, Any] = {}
    for key, text in parameters.items():
        if key in _IGNORED or (key == "mode" and text in {"caller", "listener"}):
            continue
        if key not in _PARAMETERS:
            known = ", ".join(["mode (caller or listener)", *_PARAMETERS])
            raise SrtError(f"cannot take the parameter {key!r} of an SRT address as it is; it knows {known}")
        option, meaning = _PARAMETERS[key]
        try:
            options[option] = meaning(text)
        except ValueError as error:
            raise SrtError(f"{key} of an SRT address: {error}") from None
    return options


def _passphrase(text: str) -> str:
    if not 10 <= len(text.encode()) <= 79:
        raise ValueError(f"expected 10 to 79 characters, found {len(text)}")
    return text


def _key_bytes(text: str) -> int:
    if text not in {"16", "24", "32"}:
        raise ValueError(f"expected 16, 24 or 32, found {text!r}")
    return int(text)


def _latency_ms(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"expected microseconds, found {text!r}")
    # by its length first: Python refuses to read thousands of digits, in words of its own
    if len(text) > 12 or int(text) // 1000 > _MAX_LATENCY_MS:
        shown = text if len(text) <= 24 else f"{len(text)} digits"
        raise ValueError(f"expected at most {_MAX_LATENCY_MS * 1000} microseconds (65.5 s), found {shown}")
    return int(text) // 1000


_PARAMETERS: dict[str, tuple[int, Callable[[str], Any]]] = {
    "passphrase": (_PASSPHRASE, _passphrase),
    "pbkeylen": (_PBKEYLEN, _key_bytes),
    "streamid": (_STREAMID, str),
    "latency": (_LATENCY, _latency_ms),
}


def _endpoint(host: str, port: int) -> bytes:
    """A ``sockaddr`` of Linux. Raises: SrtError: the name is unknown."""
    try:
        found = socket.getaddrinfo(unquote(host) or "0.0.0.0", port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise SrtError(f"the host is unknown ({error.strerror})") from None
    family, _, _, _, place = found[0]
    number = socket.inet_pton(family, str(place[0]).split("%")[0])
    start = struct.pack("=H", family) + struct.pack("!H", port)
    if family == socket.AF_INET6:
        scope = int(place[3]) if len(place) > 3 else 0
        return start + bytes(4) + number + struct.pack("=I", scope)
    return start + number + bytes(8)
