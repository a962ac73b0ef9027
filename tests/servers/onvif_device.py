"""An ONVIF camera for tests: WS-Discovery by real multicast, SOAP 1.2 over a real socket, logins checked strictly.

Its clock goes days wrong, as that of a camera without a network's time does, and logins must be in its time. A nonce
is good once. What it is asked must be what the standard says: the namespaces are those of ONVIF's WSDL.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from camera_rig import TwoProfiles

SOAP = "http://www.w3.org/2003/05/soap-envelope"
WSA = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
WSD = "http://schemas.xmlsoap.org/ws/2005/04/discovery"
DN = "http://www.onvif.org/ver10/network/wsdl"
TDS = "http://www.onvif.org/ver10/device/wsdl"
TRT = "http://www.onvif.org/ver10/media/wsdl"
TR2 = "http://www.onvif.org/ver20/media/wsdl"
PTZ = "http://www.onvif.org/ver20/ptz/wsdl"
TT = "http://www.onvif.org/ver10/schema"
OASIS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss"
WSSE, WSU = f"{OASIS}-wssecurity-secext-1.0.xsd", f"{OASIS}-wssecurity-utility-1.0.xsd"
DIGEST = f"{OASIS}-username-token-profile-1.0#PasswordDigest"
PREFIXES = (
    f'xmlns:SOAP-ENV="{SOAP}" xmlns:tds="{TDS}" xmlns:trt="{TRT}" xmlns:tr2="{TR2}" xmlns:tptz="{PTZ}" xmlns:tt="{TT}"'
)
GROUP, PORT = "239.255.255.250", 3702
CLOCK_IS_AHEAD = timedelta(days=-4000, hours=3)
MAX_SKEW_S = 5.0
# what an ONVIF camera tells before a login (Core specification, access class PRE_AUTH)
OPEN = ("GetSystemDateAndTime", "GetServices", "GetCapabilities")
Auth = Literal["token", "digest", "digest-sha256", "basic", "none"]


@dataclass(frozen=True)
class Picture:
    """A profile of the camera."""

    token: str
    codec: str
    width: int
    height: int
    fps: int
    uri: str

    @property
    def key(self) -> str:
        """Its token as XML."""
        return escape(self.token)


@dataclass
class OnvifDevice:
    """A running camera. ``refused`` has the reason of each login that was not right, ``calls`` every action.

    ``presets``: token → name; with any, its first profile turns, and ``turned_to`` has the tokens in their order.
    """

    pictures: list[Picture]
    username: str = "admin"
    password: str = "camera-secret-31"
    auth: Auth = "token"
    media: Literal[1, 2] = 2
    maker: str = "Testmaker"
    model: str = "TM-2 <&>"
    has_services: bool = True
    named_host: str = ""
    presets: dict[str, str] = field(default_factory=dict)
    turned_to: list[str] = field(default_factory=list)
    port: int = 0
    calls: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _nonces: set[str] = field(default_factory=set)
    _http_nonce: str = field(default_factory=lambda: uuid.uuid4().hex)
    _http_count: int = 0

    @property
    def now(self) -> datetime:
        """The time that it believes in."""
        return datetime.now(timezone.utc) + CLOCK_IS_AHEAD

    def url(self, host: str, path: str = "/onvif/device_service") -> str:
        return f"http://{self.named_host or host}:{self.port}{path}"

    def answer(self, action: str, namespace: str, body: ElementTree.Element, host: str) -> str | None:
        """The inside of a response; None for what it does not know."""
        service = {TDS: "tds", TRT: "trt", TR2: "tr2", PTZ: "tptz"}.get(namespace, "")
        if (namespace == TR2 and self.media == 1) or (namespace == PTZ and not self.presets):
            return None
        made = getattr(self, f"_{service}_{action}", None)
        inner = None if made is None else made(body, host)
        return None if inner is None else f"<{service}:{action}Response>{inner}</{service}:{action}Response>"

    def _tds_GetSystemDateAndTime(self, _: ElementTree.Element, host: str) -> str:
        now = self.now
        time = f"<tt:Hour>{now.hour}</tt:Hour><tt:Minute>{now.minute}</tt:Minute><tt:Second>{now.second}</tt:Second>"
        date = f"<tt:Year>{now.year}</tt:Year><tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day>"
        utc = f"<tt:UTCDateTime><tt:Time>{time}</tt:Time><tt:Date>{date}</tt:Date></tt:UTCDateTime>"
        kind = "<tt:DateTimeType>Manual</tt:DateTimeType><tt:DaylightSavings>false</tt:DaylightSavings>"
        return f"<tds:SystemDateAndTime>{kind}{utc}</tds:SystemDateAndTime>"

    def _tds_GetDeviceInformation(self, _: ElementTree.Element, host: str) -> str:
        facts = (("Manufacturer", self.maker), ("Model", self.model), ("FirmwareVersion", "1.2"), ("SerialNumber", "7"))
        return "".join(f"<tds:{key}>{escape(value)}</tds:{key}>" for key, value in facts) + (
            "<tds:HardwareId>1</tds:HardwareId>"
        )

    def _tds_GetServices(self, _: ElementTree.Element, host: str) -> str | None:
        if not self.has_services:
            return None
        services = [(TDS, "/onvif/device_service"), (TRT, "/onvif/media")] + [(TR2, "/onvif/media2")] * (self.media > 1)
        services += [(PTZ, "/onvif/ptz")] * bool(self.presets)
        version = "<tds:Version><tt:Major>2</tt:Major><tt:Minor>60</tt:Minor></tds:Version>"
        return "".join(
            f"<tds:Service><tds:Namespace>{name}</tds:Namespace><tds:XAddr>{self.url(host, path)}</tds:XAddr>"
            f"{version}</tds:Service>"
            for name, path in services
        )

    def _tds_GetCapabilities(self, _: ElementTree.Element, host: str) -> str:
        streaming = "<tt:StreamingCapabilities><tt:RTP_RTSP_TCP>true</tt:RTP_RTSP_TCP></tt:StreamingCapabilities>"
        media = f"<tt:Media><tt:XAddr>{self.url(host, '/onvif/media')}</tt:XAddr>{streaming}</tt:Media>"
        ptz = f"<tt:PTZ><tt:XAddr>{self.url(host, '/onvif/ptz')}</tt:XAddr></tt:PTZ>" if self.presets else ""
        return f"<tds:Capabilities>{media}{ptz}</tds:Capabilities>"

    def _trt_GetProfiles(self, _: ElementTree.Element, host: str) -> str:
        return "".join(
            f'<trt:Profiles token="{one.key}" fixed="true"><tt:Name>{one.key}</tt:Name>'
            f'<tt:VideoEncoderConfiguration token="e{one.key}"><tt:Name>e</tt:Name><tt:UseCount>1</tt:UseCount>'
            f"<tt:Encoding>{one.codec}</tt:Encoding>{_resolution(one)}<tt:Quality>5</tt:Quality><tt:RateControl>"
            f"<tt:FrameRateLimit>{one.fps}</tt:FrameRateLimit><tt:EncodingInterval>1</tt:EncodingInterval>"
            "<tt:BitrateLimit>2048</tt:BitrateLimit></tt:RateControl><tt:SessionTimeout>PT60S</tt:SessionTimeout>"
            f"</tt:VideoEncoderConfiguration>{self._turns(one, 'tt:PTZConfiguration')}</trt:Profiles>"
            for one in self.pictures
        )

    def _tr2_GetProfiles(self, body: ElementTree.Element, host: str) -> str:
        asked = body.findtext(f"{{{TR2}}}Type")
        assert asked in ("All", "PTZ"), "without a type the second service tells names alone"
        return "".join(
            f'<tr2:Profiles token="{one.key}" fixed="true"><tr2:Name>{one.key}</tr2:Name><tr2:Configurations>'
            f'<tr2:VideoEncoder token="e{one.key}"><tt:Name>e</tt:Name><tt:UseCount>1</tt:UseCount>'
            f"<tt:Encoding>{one.codec}</tt:Encoding>{_resolution(one)}<tt:RateControl>"
            f"<tt:FrameRateLimit>{one.fps}.0</tt:FrameRateLimit><tt:BitrateLimit>2048</tt:BitrateLimit>"
            "</tt:RateControl><tt:Quality>5</tt:Quality></tr2:VideoEncoder>"
            f"{self._turns(one, 'tr2:PTZ')}</tr2:Configurations></tr2:Profiles>"
            for one in self.pictures
        )

    def _turns(self, one: Picture, tag: str) -> str:
        if not self.presets or one is not self.pictures[0]:
            return ""
        return (
            f'<{tag} token="p"><tt:Name>p</tt:Name><tt:UseCount>1</tt:UseCount><tt:NodeToken>n</tt:NodeToken></{tag}>'
        )

    def _tptz_GetPresets(self, body: ElementTree.Element, host: str) -> str | None:
        if body.findtext(f"{{{PTZ}}}ProfileToken") != self.pictures[0].token:
            return None
        return "".join(
            f'<tptz:Preset token="{escape(token)}"><tt:Name>{escape(name)}</tt:Name></tptz:Preset>'
            for token, name in self.presets.items()
        )

    def _tptz_GotoPreset(self, body: ElementTree.Element, host: str) -> str | None:
        token = body.findtext(f"{{{PTZ}}}PresetToken")
        if body.findtext(f"{{{PTZ}}}ProfileToken") != self.pictures[0].token or token not in self.presets:
            return None
        self.turned_to.append(token)
        return ""

    def _trt_GetStreamUri(self, body: ElementTree.Element, host: str) -> str | None:
        assert body.findtext(f"{{{TRT}}}StreamSetup/{{{TT}}}Transport/{{{TT}}}Protocol") == "RTSP"
        assert body.findtext(f"{{{TRT}}}StreamSetup/{{{TT}}}Stream") == "RTP-Unicast"
        uri = self._uri(body.findtext(f"{{{TRT}}}ProfileToken"))
        rest = (
            "<tt:InvalidAfterConnect>false</tt:InvalidAfterConnect><tt:InvalidAfterReboot>false</tt:InvalidAfterReboot>"
        )
        return (
            None
            if uri is None
            else f"<trt:MediaUri><tt:Uri>{uri}</tt:Uri>{rest}<tt:Timeout>PT0S</tt:Timeout></trt:MediaUri>"
        )

    def _tr2_GetStreamUri(self, body: ElementTree.Element, host: str) -> str | None:
        assert body.findtext(f"{{{TR2}}}Protocol") == "RTSP"
        uri = self._uri(body.findtext(f"{{{TR2}}}ProfileToken"))
        return None if uri is None else f"<tr2:Uri>{uri}</tr2:Uri>"

    def _uri(self, token: str | None) -> str | None:
        return next((escape(one.uri) for one in self.pictures if one.token == token), None)

    def check_token(self, root: ElementTree.Element) -> str:
        """Why the login in the envelope is not right; empty where it is."""
        security = root.find(f"{{{SOAP}}}Header/{{{WSSE}}}Security")
        if security is None:
            return "no login"
        told = {key: security.find(f"{{{WSSE}}}UsernameToken/{key}") for key in _TOKEN_PARTS}
        if any(part is None for part in told.values()):
            return f"a part is missing: {[key for key, part in told.items() if part is None]}"
        user, password, nonce, created = (part.text or "" for part in told.values() if part is not None)
        kind = told[f"{{{WSSE}}}Password"]
        assert kind is not None
        if kind.get("Type") != DIGEST:
            return "the password is no digest"
        at = datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        if abs((at - self.now).total_seconds()) > MAX_SKEW_S:
            return f"created {at - self.now} from now"
        if nonce in self._nonces:
            return "a nonce came twice"
        self._nonces.add(nonce)
        right = hashlib.sha1(base64.b64decode(nonce, validate=True) + created.encode() + self.password.encode())
        if user != self.username or base64.b64decode(password, validate=True) != right.digest():
            return "wrong user or password"
        return ""

    def check_http(self, header: str, path: str) -> str:
        """The same for Digest of HTTP: qop auth, and a count that rises."""
        if not header.startswith("Digest "):
            return "no login"
        told = {key: quoted or plain for key, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', header)}
        hashed = hashlib.sha256 if self.auth == "digest-sha256" else hashlib.md5
        count = int(told["nc"], 16)
        if (
            told["nonce"] != self._http_nonce
            or told["opaque"] != "ab"
            or count <= self._http_count
            or told["qop"] != "auth"
        ):
            return "an old nonce, or a count that does not rise"
        self._http_count = count
        first = hashed(f"{self.username}:onvif, camera:{self.password}".encode()).hexdigest()
        second = hashed(f"POST:{path}".encode()).hexdigest()
        middle = f"{told['nonce']}:{told['nc']}:{told['cnonce']}:auth"
        is_right = told["response"] == hashed(f"{first}:{middle}:{second}".encode()).hexdigest()
        return (
            "" if is_right and told["username"] == self.username and told["uri"] == path else "wrong user or password"
        )

    def challenges(self) -> list[str]:
        basic = 'Basic realm="onvif, camera"'
        self._http_nonce, self._http_count = uuid.uuid4().hex, 0
        if self.auth == "basic":
            return [basic]
        kind = "SHA-256" if self.auth == "digest-sha256" else "MD5"
        asked = f'qop="auth,auth-int", nonce="{self._http_nonce}", opaque="ab", algorithm={kind}'
        return [f'Digest realm="onvif, camera", {asked}', basic]


_TOKEN_PARTS = (
    f"{{{WSSE}}}Username",
    f"{{{WSSE}}}Password",
    f"{{{WSSE}}}Nonce",
    f"{{{WSU}}}Created",
)


def _resolution(one: Picture) -> str:
    return f"<tt:Resolution><tt:Width>{one.width}</tt:Width><tt:Height>{one.height}</tt:Height></tt:Resolution>"


def _envelope(body: str) -> bytes:
    text = f"<SOAP-ENV:Envelope {PREFIXES}><SOAP-ENV:Body>{body}</SOAP-ENV:Body></SOAP-ENV:Envelope>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def _fault(code: str, subcode: str, reason: str) -> bytes:
    sub = f"<SOAP-ENV:Subcode><SOAP-ENV:Value>ter:{subcode}</SOAP-ENV:Value></SOAP-ENV:Subcode>"
    return _envelope(
        f'<SOAP-ENV:Fault xmlns:ter="http://www.onvif.org/ver10/error"><SOAP-ENV:Code><SOAP-ENV:Value>SOAP-ENV:{code}'
        f"</SOAP-ENV:Value>{sub}</SOAP-ENV:Code><SOAP-ENV:Reason>"
        f'<SOAP-ENV:Text xml:lang="en">{reason}</SOAP-ENV:Text></SOAP-ENV:Reason></SOAP-ENV:Fault>'
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    device: OnvifDevice

    def do_POST(self) -> None:
        status, body, headers = self._answer(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(status)
        for challenge in headers:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Type", "application/soap+xml; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, data: bytes) -> tuple[int, bytes, list[str]]:
        device = self.device
        root = ElementTree.fromstring(data)
        assert root.tag == f"{{{SOAP}}}Envelope" and "application/soap+xml" in self.headers["Content-Type"]
        body = root.find(f"{{{SOAP}}}Body")
        assert body is not None and len(body) == 1
        namespace, _, action = body[0].tag[1:].partition("}")
        device.calls.append(action)
        if action not in OPEN and device.auth != "none":
            is_http = device.auth != "token"
            header = self.headers.get("Authorization", "")
            why = device.check_http(header, self.path) if is_http else device.check_token(root)
            if why:
                device.refused.append(why)
                is_asked = [] if not is_http else device.challenges()
                return (401 if is_http else 400), _fault("Sender", "NotAuthorized", "Sender not Authorized"), is_asked
        host = self.headers["Host"].rpartition(":")[0]
        inner = device.answer(action, namespace, body[0], host)
        if inner is None:
            return 500, _fault("Receiver", "ActionNotSupported", "Optional Action Not Implemented"), []
        return 200, _envelope(inner), []

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def onvif_device(device: OnvifDevice) -> Iterator[OnvifDevice]:
    """Run a camera until the block ends: it is found on the loopback interface, and answers on all addresses."""
    handler = type("Handler", (_Handler,), {"device": device})
    server = ThreadingHTTPServer(("", 0), handler)
    device.port = server.server_port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearing:
        hearing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hearing.bind((GROUP, PORT))
        member = struct.pack("@4s4si", socket.inet_aton(GROUP), bytes(4), socket.if_nametoindex("lo"))
        hearing.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        hearing.settimeout(0.1)
        ending = threading.Event()
        threads = [
            threading.Thread(target=server.serve_forever, args=(0.05,)),
            threading.Thread(target=_discovered, args=(device, hearing, ending)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield device
        finally:
            ending.set()
            server.shutdown()
            for thread in threads:
                thread.join()
            server.server_close()


@contextmanager
def two_pictures(password: str) -> Iterator[OnvifDevice]:
    """A device with a large and a small picture that are really there; its user is ``admin``.

    Its addresses name a network that nobody reaches, as those of cameras behind a router do.
    """
    pictures = TwoProfiles("1280x720x10", "640x360x10", login=f"admin:{password}")
    profiles = [
        Picture("main", "H264", 1280, 720, 10, f"rtsp://192.0.2.77:{pictures.port}/main"),
        Picture("sub", "H264", 640, 360, 10, f"rtsp://192.0.2.77:{pictures.port}/sub"),
    ]
    try:
        with onvif_device(OnvifDevice(profiles, password=password)) as device:
            yield device
    finally:
        pictures.kill()


def _discovered(device: OnvifDevice, hearing: socket.socket, ending: threading.Event) -> None:
    while not ending.is_set():
        try:
            data, asker = hearing.recvfrom(65_535)
        except TimeoutError:
            continue
        root = ElementTree.fromstring(data)
        types = root.find(f"{{{SOAP}}}Body/{{{WSD}}}Probe/{{{WSD}}}Types")
        message = root.findtext(f"{{{SOAP}}}Header/{{{WSA}}}MessageID")
        if message is None or types is None or b"NetworkVideoTransmitter" not in data:
            continue
        scopes = "onvif://www.onvif.org/type/video_encoder onvif://www.onvif.org/name/Front%20door"
        # one address of a network that nobody reaches first, as cameras with two interfaces do
        addresses = f"http://169.254.7.7/onvif/device_service {device.url(asker[0])}"
        answer = (
            f'<s:Envelope xmlns:s="{SOAP}" xmlns:a="{WSA}" xmlns:d="{WSD}" xmlns:dn="{DN}"><s:Header>'
            f"<a:MessageID>{uuid.uuid4().urn}</a:MessageID><a:RelatesTo>{message}</a:RelatesTo>"
            f"<a:To>{WSA}/role/anonymous</a:To><a:Action>{WSD}/ProbeMatches</a:Action></s:Header><s:Body>"
            f"<d:ProbeMatches><d:ProbeMatch><a:EndpointReference><a:Address>{uuid.uuid4().urn}</a:Address>"
            f"</a:EndpointReference><d:Types>dn:NetworkVideoTransmitter</d:Types><d:Scopes>{scopes}</d:Scopes>"
            f"<d:XAddrs>{addresses}</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion></d:ProbeMatch></d:ProbeMatches>"
            "</s:Body></s:Envelope>"
        )
        hearing.sendto(answer.encode(), asker)
