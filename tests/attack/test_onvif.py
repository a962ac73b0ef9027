"""Cameras that mean harm: what they answer is bounded in time and bytes, and no password goes to anybody else."""

from __future__ import annotations

import resource
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from hostile import Hostile
from onvif_device import GROUP, PORT

from edge.errors import SourceError
from edge.onvif.device import Device, look_at
from edge.onvif.discovery import find_devices
from edge.onvif.ptz import go_to, presets_of
from edge.onvif.soap import MAX_ANSWER_BYTES, MAX_DEPTH, MAX_ELEMENTS, Login, parse_xml

LOGIN = Login("admin", "canary-geheim-77")
SOAP = "http://www.w3.org/2003/05/soap-envelope"
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12))
    + "]><x>&m;</x>"
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]><x>&f;</x>'
TIMEOUT_S = 1.5


@pytest.fixture
def hostile() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    servers: list[Hostile] = []

    def start(behaviour: Callable[[socket.socket], None]) -> str:
        servers.append(Hostile(behaviour))
        return f"http://127.0.0.1:{servers[-1].port}/onvif/device_service"

    yield start
    for server in servers:
        server.close()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def requests_of(connection: socket.socket) -> Iterator[bytes]:
    """Whole requests: head and body."""
    data = b""
    while part := connection.recv(65_536):
        data += part
        head, blank, body = data.partition(b"\r\n\r\n")
        if blank and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            yield data
            data = b""


def answering(data: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        for _ in requests_of(connection):
            connection.sendall(data)

    return behave


def envelope(body: str) -> bytes:
    return f'<e:Envelope xmlns:e="{SOAP}"><e:Body>{body}</e:Body></e:Envelope>'.encode()


def endless(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\n\r\n<a>")
    while True:
        connection.sendall(b"<b>x</b>" * 10_000)


def endless_header(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
    while True:
        connection.sendall(b"a" * 10_000)


def one_byte_now_and_then(connection: socket.socket) -> None:
    connection.recv(65_536)
    for byte in http(b"<a>" + b" " * 10_000):
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


def silent(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def seen(url: str) -> tuple[Device, float]:
    """What it is, and how long that took."""
    began_s = time.monotonic()
    return look_at(url, LOGIN, TIMEOUT_S), time.monotonic() - began_s


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (endless, "1 MiB"),
        (endless_header, ""),
        (one_byte_now_and_then, ""),
        (silent, ""),
        (answering(http(BOMB.encode())), "document type"),
        (answering(http(OUTSIDE.encode())), "document type"),
        (answering(http(b"<a>" * 5_000)), "too deep"),
        (answering(http(b"<a>" + b"<b/>" * 100_000 + b"</a>")), "too many elements"),
        (answering(http(b"\xff\xfe\x00not xml")), "no XML"),
        (answering(http(envelope("<Other/>"))), "something else"),
        (answering(http(b"no", "404 Not Found")), "HTTP 404"),
        (answering(b"SSH-2.0-OpenSSH_9.2\r\n"), ""),
        (answering(http(b"", "401 Unauthorized", 'WWW-Authenticate: Digest nonce="' + "a" * 50_000)), "no digest"),
        (answering(http(b"", "401 Unauthorized", "WWW-Authenticate: " + "Digest a=b, " * 4_000)), ""),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:20],
)
def test_no_answer_costs_more_than_its_share(
    hostile: Callable[[Callable[[socket.socket], None]], str], behaviour: Callable[[socket.socket], None], words: str
) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    device, spent_s = seen(hostile(behaviour))
    assert device.fault and words in device.fault and not device.profiles
    assert "canary" not in device.fault
    assert spent_s < TIMEOUT_S + 2
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    assert grown_mb < 20 * (MAX_ANSWER_BYTES >> 20)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_is_not_followed(hostile: Callable[[Callable[[socket.socket], None]], str], status: str) -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        location = f"Location: http://127.0.0.2:{other.getsockname()[1]}/onvif/device_service"
        device, _ = seen(hostile(answering(http(b"", status, location))))
        assert f"HTTP {status[:3]}" in device.fault
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.accept()


def test_services_at_another_host_are_asked_at_the_camera_alone(
    hostile: Callable[[Callable[[socket.socket], None]], str],
) -> None:
    """It names its media service, and its pictures, at a machine that shall hear the digest of the password."""
    heard: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        for request in requests_of(connection):
            heard.append(request)
            connection.sendall(http(_answer_to(request, other.getsockname()[1])))

    with socket.create_server(("127.0.0.2", 0)) as other:
        device, _ = seen(hostile(behave))
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.accept()
    assert any(b"POST /media HTTP" in request for request in heard), "its path counts"
    assert [one.address for one in device.profiles] == ["rtsp://127.0.0.1:8554/live"]


def _answer_to(request: bytes, port: int) -> bytes:
    evil = f"http://127.0.0.2:{port}/media"
    profile = '<Profiles token="a"><Name>a</Name></Profiles>'
    service = "http://www.onvif.org/ver10/media/wsdl"
    answers = {
        b"GetServices": f"<Service><Namespace>{service}</Namespace><XAddr>{evil}</XAddr></Service>",
        b"GetProfiles": profile,
        b"GetStreamUri": "<MediaUri><Uri>rtsp://127.0.0.2:8554/live</Uri></MediaUri>",
        b"GetDeviceInformation": "<Manufacturer>&#9;evil\u202e</Manufacturer>",
        b"GetSystemDateAndTime": "<SystemDateAndTime><UTCDateTime><Date><Year>99999999999</Year></Date></UTCDateTime>"
        "</SystemDateAndTime>",
    }
    action = next(name for name in answers if name in request)
    name = action.decode()
    return envelope(f"<{name}Response>{answers[action]}</{name}Response>")


@pytest.mark.parametrize("behaviour", [endless, one_byte_now_and_then, silent, answering(http(BOMB.encode()))])
def test_a_camera_that_shall_turn_costs_no_more(
    hostile: Callable[[Callable[[socket.socket], None]], str], behaviour: Callable[[socket.socket], None]
) -> None:
    url, began_s = hostile(behaviour), time.monotonic()
    for ask in (lambda: presets_of(url, LOGIN, TIMEOUT_S), lambda: go_to(url, "gate", LOGIN, TIMEOUT_S)):
        with pytest.raises(SourceError) as failed:
            ask()
        assert "canary" not in str(failed.value)
    assert time.monotonic() - began_s < 2 * (TIMEOUT_S + 2)


def test_a_service_that_turns_at_another_host_is_asked_at_the_camera_alone(
    hostile: Callable[[Callable[[socket.socket], None]], str],
) -> None:
    def behave(connection: socket.socket) -> None:
        for request in requests_of(connection):
            heard.append(request)
            evil = f"http://127.0.0.2:{other.getsockname()[1]}/ptz"
            ptz = f"<Service><Namespace>http://www.onvif.org/ver20/ptz/wsdl</Namespace><XAddr>{evil}</XAddr></Service>"
            turns = '<Profiles token="a"><PTZConfiguration/></Profiles>'
            inner = {b"GetServices": ptz, b"GetProfiles": turns, b"GetPresets": '<Preset token="1"/>'}
            action = next((name for name in inner if name in request), b"GetSystemDateAndTime")
            name = action.decode()
            connection.sendall(http(envelope(f"<{name}Response>{inner.get(action, '')}</{name}Response>")))

    heard: list[bytes] = []
    with socket.create_server(("127.0.0.2", 0)) as other:
        assert [one.token for one in presets_of(hostile(behave), LOGIN, TIMEOUT_S)] == ["1"]
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.accept()
    assert any(b"POST /ptz HTTP" in request for request in heard), "its path counts"


def test_thousands_of_profiles_are_a_few(hostile: Callable[[Callable[[socket.socket], None]], str]) -> None:
    def behave(connection: socket.socket) -> None:
        for request in requests_of(connection):
            body = _answer_to(request, 1)
            many = b"".join(b'<Profiles token="t%d"></Profiles>' % number for number in range(9_000))
            connection.sendall(http(body.replace(b'<Profiles token="a"><Name>a</Name></Profiles>', many)))

    device, spent_s = seen(hostile(behave))
    assert len(device.profiles) <= 16 and spent_s < TIMEOUT_S + 1


def test_what_is_too_deep_or_too_much_is_refused_while_it_is_read() -> None:
    assert parse_xml(b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH).tag == "a"
    assert len(parse_xml(b"<a>" + b"<b/>" * (MAX_ELEMENTS - 1) + b"</a>")) == MAX_ELEMENTS - 1
    began_s = time.process_time()
    for data in (b"<a>" * (MAX_DEPTH + 1), b"<a>" + b"<b/>" * MAX_ELEMENTS, BOMB.encode(), b"<a " + b"x" * 1_000_000):
        with pytest.raises(ValueError, match="XML"):
            parse_xml(data)
    assert time.process_time() - began_s < 1


class Liar:
    """Answers every question on the network in many ways that are wrong, and one that is right."""

    def __enter__(self) -> Liar:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((GROUP, PORT))
        member = struct.pack("@4s4si", socket.inet_aton(GROUP), bytes(4), socket.if_nametoindex("lo"))
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        self._socket.settimeout(0.1)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._lie)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._socket.close()

    def _lie(self) -> None:
        while not self._ending.is_set():
            try:
                data, asker = self._socket.recvfrom(65_535)
            except TimeoutError:
                continue
            message = data.partition(b"MessageID>")[2].partition(b"<")[0].decode()
            for answer in self._answers(message):
                self._socket.sendto(answer, asker)

    def _answers(self, message: str) -> Iterator[bytes]:
        def match(addresses: str, to: str = message) -> bytes:
            return (
                f'<e:Envelope xmlns:e="{SOAP}"><e:Header><RelatesTo>{to}</RelatesTo></e:Header><e:Body><ProbeMatches>'
                f"<ProbeMatch><XAddrs>{addresses}</XAddrs></ProbeMatch></ProbeMatches></e:Body></e:Envelope>"
            ).encode()

        yield BOMB.encode()
        yield b"\x00" * 60_000
        yield match("http://lie/of-another-question", uuid.uuid4().urn)
        yield match("ftp://lie/a file:///lie http://[lie http://lie:99999999/ http://lie/a?b=<c/>")
        yield match("x " * 20_000)
        yield match("http://elsewhere:9/lie-right")
        yield from (match(f"http://elsewhere:{port}/lie-many") for port in range(1, 2_000))


def test_who_lies_on_the_network_is_listened_to_for_a_while_only() -> None:
    with Liar():
        began_s = time.monotonic()
        found = [one for one in find_devices(1.0) if "lie" in one.url]
        assert time.monotonic() - began_s < 3
    assert all(one.url.startswith(f"http://{one.host}:") for one in found), "at who answered, whoever he names"
    assert "elsewhere" not in str(found) and "another-question" not in str(found)
    assert any("/lie-right" in one.url for one in found)
    assert len(found) <= 254
