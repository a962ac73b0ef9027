"""WS-Discovery 1.0: who on this network is an ONVIF camera. One question by multicast, answers for a few seconds."""

from __future__ import annotations

import re
import select
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

from edge.addresses.printable import one_line
from edge.errors import SourceError
from edge.onvif.device import NOBODY, SERVICE_PATH, Device, look_at
from edge.onvif.soap import ENVELOPE, MAX_TEXT, Login, parse_xml

GROUP, PORT = "239.255.255.250", 3702
MAX_DATAGRAM = 65_535
# a /24 full of cameras, each answering for two interfaces
MAX_ANSWERS = 512
MAX_DEVICES = 254
NUM_THREADS = 8
# who did not hear the first question hears the second
ASK_AGAIN_S = 0.5
ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
DISCOVERY = "http://schemas.xmlsoap.org/ws/2005/04/discovery"
NETWORK = "http://www.onvif.org/ver10/network/wsdl"


@dataclass(frozen=True, slots=True)
class Found:
    """Who answered: the device service at the address that the answer came from, and what it says of itself."""

    host: str
    url: str
    name: str = ""
    hardware: str = ""


def find_devices(wait_s: float = 3.0) -> list[Found]:
    """Ask all networks of this machine for ONVIF cameras, and listen.

    Args:
        wait_s: how long.

    Returns:
        One for each address that answered, in their order.

    Raises:
        SourceError: this machine is on no network that can be asked.
    """
    message = uuid.uuid4().urn
    found: dict[str, Found] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        _ask(asking, message)
        for data, host in _answers(asking, wait_s, lambda: _ask(asking, message)):
            for one in _matches(data, host, message):
                if len(found) < MAX_DEVICES:
                    found.setdefault(one.url, one)
    return sorted(found.values(), key=lambda one: (tuple(map(int, one.host.split("."))), one.url))


def look_at_all(urls: list[str], login: Login = NOBODY) -> list[Device]:
    """Ask many cameras at once what they are; see ``look_at``."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(partial(look_at, login=login), urls))


def _ask(asking: socket.socket, message: str) -> None:
    """Send the question to every interface. Raises: SourceError: none takes it."""
    text = (
        f'<e:Envelope xmlns:e="{ENVELOPE}" xmlns:a="{ADDRESSING}" xmlns:d="{DISCOVERY}"><e:Header>'
        f"<a:Action>{DISCOVERY}/Probe</a:Action><a:MessageID>{message}</a:MessageID>"
        "<a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To></e:Header><e:Body><d:Probe>"
        f'<d:Types xmlns:n="{NETWORK}">n:NetworkVideoTransmitter</d:Types></d:Probe></e:Body></e:Envelope>'
    )
    num_sent = 0
    for number, _ in socket.if_nameindex():
        membership = struct.pack("@4s4si", socket.inet_aton(GROUP), bytes(4), number)
        # an interface may be down, or have no IPv4
        with suppress(OSError):
            asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
            asking.sendto(text.encode(), (GROUP, PORT))
            num_sent += 1
    if not num_sent:
        raise SourceError("no network of this machine takes a multicast; name the cameras: edge discover HOST …")


def _answers(asking: socket.socket, wait_s: float, ask_again: Callable[[], None]) -> Iterator[tuple[bytes, str]]:
    deadline_s, again_s = time.monotonic() + wait_s, time.monotonic() + ASK_AGAIN_S
    for _ in range(MAX_ANSWERS):
        while not select.select([asking], [], [], max(0.0, min(deadline_s, again_s) - time.monotonic()))[0]:
            if time.monotonic() >= deadline_s:
                return
            again_s = float("inf")
            ask_again()
        data, (host, _port) = asking.recvfrom(MAX_DATAGRAM)
        yield data, host
        if time.monotonic() >= deadline_s:
            return


def _matches(data: bytes, host: str, message: str) -> Iterator[Found]:
    """The devices in an answer to our question; nothing where it is none."""
    try:
        root = parse_xml(data)
    except ValueError:
        return
    related = root.find("Header/RelatesTo")
    if related is None or (related.text or "").strip() != message:
        return
    for match in root.findall("Body/ProbeMatches/ProbeMatch")[:4]:
        url = _own_url(match, host)
        scopes = _scopes(match)
        if url:
            yield Found(host, url, scopes.get("name", ""), scopes.get("hardware", ""))


def _own_url(match: Element, host: str) -> str:
    """The device service at the host that answered: of what it names only scheme, port and path count."""
    named = (match.findtext("XAddrs") or "").split()[:8]
    parts = []
    for address in named:
        with suppress(ValueError):
            one = urlsplit(address)
            if one.scheme in ("http", "https") and re.fullmatch(r"[\w./-]*", one.path):
                # a second interface that nobody set up
                rank = (one.hostname == host, not (one.hostname or "").startswith("169.254."))
                parts.append((rank, one.scheme, one.port, one.path))
    if not parts:
        return ""
    _, scheme, port, path = max(parts, key=lambda one: one[0])
    return f"{scheme}://{host}{f':{port}' if port else ''}{path or SERVICE_PATH}"


def _scopes(match: Element) -> dict[str, str]:
    """``onvif://www.onvif.org/name/Front%20door`` → name: Front door."""
    found: dict[str, str] = {}
    for scope in (match.findtext("Scopes") or "").split()[:64]:
        kind, _, value = scope.removeprefix("onvif://www.onvif.org/").partition("/")
        found.setdefault(kind.lower(), one_line(unquote(value))[:MAX_TEXT])
    return found
