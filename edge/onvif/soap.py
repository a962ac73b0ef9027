"""SOAP 1.2 calls to a camera: bounded in time and bytes, without DTDs, to it alone, with digests of the password.

UsernameToken: OASIS WS-Security UsernameToken Profile 1.0. Digest of HTTP: RFC 7616.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

from edge.addresses.printable import first_line, one_line
from edge.errors import SourceError
from edge.net.timed_http import FAULTS, Answer, TimedHttp, target_of

MAX_ANSWER_BYTES = 1 << 20
MAX_ELEMENTS = 20_000
MAX_DEPTH = 64
MAX_TEXT = 200
ENVELOPE = "http://www.w3.org/2003/05/soap-envelope"
SECURITY = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss"
DIGEST_TYPE = f"{SECURITY}-username-token-profile-1.0#PasswordDigest"
BASE64_TYPE = f"{SECURITY}-soap-message-security-1.0#Base64Binary"
# a camera may offer several, and Basic too
_DIGEST = re.compile(r"(?i)(?:^|,)\s*Digest\s+((?:[\w-]+\s*=\s*(?:\"[^\"]*\"|[^\s,\"]+)\s*(?:,\s*|$))+)")
_PARAMETER = re.compile(r'([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
_HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


class CallError(SourceError):
    """The camera refused a call. ``is_login``: it wants a user name and password, or others."""

    def __init__(self, message: str, *, is_login: bool = False) -> None:
        super().__init__(message)
        self.is_login = is_login


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the camera."""

    username: str = ""
    password: str = ""


def parse_xml(data: bytes) -> Element:
    """Read XML of strangers; names stand without their namespace, as every maker writes his own prefixes.

    Raises:
        ValueError: it is no XML, has a document type (and so might have entities), or is too large or too deep.
    """
    builder, depth, count = TreeBuilder(), 0, 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise ValueError("its XML is too deep or has too many elements")
        builder.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(name))

    def refuse(*_: object) -> None:
        raise ValueError("its XML has a document type, which SOAP forbids")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError) as error:
        raise ValueError(f"it answers with no XML ({first_line(error)})") from None


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def text_at(element: Element | None, path: str) -> str:
    """The text of a part of an answer as one short line; empty where it is missing."""
    found = None if element is None else element.find(path)
    return "" if found is None else one_line((found.text or "").strip())[:MAX_TEXT].strip()


class Soap:
    """The services of one camera, over one connection. Used by one thread.

    Only the host and port that were given are ever asked: no redirect is followed, and of the addresses that the
    camera names only the path counts. A password leaves as a digest or not at all.

    Args:
        url: of its device service.
        login: its user; empty: asked as anybody.
        timeout_s: for everything that is asked here, together.
    """

    def __init__(self, url: str, login: Login, timeout_s: float) -> None:
        parts = urlsplit(url)
        self.url, self.host = url, parts.hostname or ""
        self._login = login
        self._deadline_s = time.monotonic() + timeout_s
        self._challenge: dict[str, str] = {}
        self._num_shown = 0
        self._ahead = timedelta()
        self._http = TimedHttp(url, _any_certificate() if parts.scheme == "https" else None)
        # who names another port than the camera's is not asked there
        self._netloc = parts.netloc.rpartition("@")[2]

    def call(self, url: str, namespace: str, action: str, inner: str = "", *, is_open: bool = False) -> Element:
        """Call an action and give the element of its response.

        Args:
            url: of the service; its path counts.
            namespace: of the service.
            action: ``GetProfiles``; the response is ``GetProfilesResponse``.
            inner: XML within it, in the prefix ``s``.
            is_open: needs no login, so none is shown.

        Raises:
            CallError: it refuses.
            SourceError: it does not answer, or with what is no answer.
        """
        body = self._envelope(f'<s:{action} xmlns:s="{namespace}">{inner}</s:{action}>', has_login=not is_open)
        kind = f'application/soap+xml; charset=utf-8; action="{namespace}/{action}"'
        answer = self._post(target_of(url), body, kind, may_login=not is_open)
        if answer.status == 401:
            raise CallError(f"{self._netloc}: {self._why_401()}", is_login=True)
        if answer.status not in (200, 400, 500):
            raise SourceError(
                f"{self._netloc}: {action} was answered by HTTP {answer.status}, expected an ONVIF camera"
            )
        return self._response(answer.body, action)

    def tell_time(self, namespace: str) -> None:
        """Ask the camera for its time, in which it expects logins. Raises: SourceError: it does not answer."""
        try:
            told = self.call(self.url, namespace, "GetSystemDateAndTime", is_open=True)
            utc = told.find("SystemDateAndTime/UTCDateTime")
            year, month, day, hour, minute, second = (int(text_at(utc, path)) for path in _TIME)
            there = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
        except (CallError, ValueError, OverflowError):
            # it has no clock, or hides it: ours is the best guess
            return
        self._ahead = there - datetime.now(timezone.utc)

    def close(self) -> None:
        """May be called twice."""
        self._http.close()

    def _post(self, target: str, body: bytes, kind: str, *, may_login: bool) -> Answer:
        headers = {"Content-Type": kind}
        try:
            answer = self._ask(target, body, self._with_digest(headers, target))
            asked = answer.headers.get("www-authenticate", "")
            if answer.status == 401 and may_login and self._login.username and self._take_challenge(asked):
                answer = self._ask(target, body, self._with_digest(headers, target))
        except FAULTS as error:
            raise SourceError(f"{self._netloc}: {first_line(error)}") from None
        return answer

    def _ask(self, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("it took too long")
        answer = self._http.ask("POST", target, body, headers, timeout_s=left_s, max_bytes=MAX_ANSWER_BYTES)
        if len(answer.body) >= MAX_ANSWER_BYTES:
            raise ValueError(f"it answers more than {MAX_ANSWER_BYTES >> 20} MiB")
        return answer

    def _take_challenge(self, header: str) -> bool:
        """Whether what the camera wants to see is a digest that was not shown yet."""
        offered = [dict(_parameters(text)) for text in _DIGEST.findall(header)]
        known = [one for one in offered if one.get("algorithm", "MD5").upper() in _HASHES and _has_auth(one)]
        before, self._challenge = self._challenge, known[0] if known else {}
        if self._challenge.get("nonce") == before.get("nonce"):
            return False
        self._num_shown = 0
        return True

    def _with_digest(self, headers: dict[str, str], target: str) -> dict[str, str]:
        asked = self._challenge
        if not asked:
            return headers
        self._num_shown += 1
        algorithm, count, own = asked.get("algorithm", "MD5").upper(), f"{self._num_shown:08x}", secrets.token_hex(8)
        user, realm, nonce = self._login.username, asked.get("realm", ""), asked.get("nonce", "")
        first = _hashed(algorithm, f"{user}:{realm}:{self._login.password}")
        second = _hashed(algorithm, f"POST:{target}")
        # RFC 2069 knew no qop
        middle = f"{nonce}:{count}:{own}:auth" if "qop" in asked else nonce
        shown = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
        shown["response"] = _hashed(algorithm, f"{first}:{middle}:{second}")
        shown |= {"opaque": asked["opaque"]} if "opaque" in asked else {}
        shown |= {"cnonce": own} if "qop" in asked else {}
        text = ", ".join(f'{key}="{_quoted(value)}"' for key, value in shown.items()) + f", algorithm={algorithm}"
        return {**headers, "Authorization": f"Digest {text}" + (f", qop=auth, nc={count}" if "qop" in asked else "")}

    def _why_401(self) -> str:
        if not self._login.username:
            return "it wants a user name and password"
        if not self._challenge:
            return "it takes no digest of a password, and none is sent in clear text; give its RTSP address instead"
        return "it does not take this user name and password"

    def _envelope(self, body: str, *, has_login: bool) -> bytes:
        header = f"<e:Header>{self._token()}</e:Header>" if has_login and self._login.username else ""
        return f'<e:Envelope xmlns:e="{ENVELOPE}">{header}<e:Body>{body}</e:Body></e:Envelope>'.encode()

    def _token(self) -> str:
        nonce = secrets.token_bytes(16)
        created = f"{datetime.now(timezone.utc) + self._ahead:%Y-%m-%dT%H:%M:%SZ}"
        digest = hashlib.sha1(nonce + created.encode() + self._login.password.encode()).digest()
        return (
            f'<w:Security xmlns:w="{SECURITY}-wssecurity-secext-1.0.xsd" e:mustUnderstand="true"><w:UsernameToken>'
            f"<w:Username>{escape(self._login.username)}</w:Username>"
            f'<w:Password Type="{DIGEST_TYPE}">{b64encode(digest).decode()}</w:Password>'
            f'<w:Nonce EncodingType="{BASE64_TYPE}">{b64encode(nonce).decode()}</w:Nonce>'
            f'<u:Created xmlns:u="{SECURITY}-wssecurity-utility-1.0.xsd">{created}</u:Created>'
            "</w:UsernameToken></w:Security>"
        )

    def _response(self, data: bytes, action: str) -> Element:
        try:
            root = parse_xml(data)
        except ValueError as error:
            raise SourceError(f"{self._netloc}: {action}: {error}") from None
        fault = root.find("Body/Fault")
        if fault is not None:
            codes = " ".join(one_line(code.text or "") for code in fault.iter("Value"))
            reason = text_at(fault, "Reason/Text") or codes[:MAX_TEXT] or "no reason"
            is_login = any(word in codes for word in _LOGIN_FAULTS)
            raise CallError(f"{self._netloc}: it refuses {action} ({reason})", is_login=is_login)
        found = root.find(f"Body/{action}Response")
        if found is None:
            raise SourceError(f"{self._netloc}: it answers {action} with something else; is it an ONVIF camera?")
        return found


_TIME = ("Date/Year", "Date/Month", "Date/Day", "Time/Hour", "Time/Minute", "Time/Second")
_LOGIN_FAULTS = ("NotAuthorized", "FailedAuthentication", "InvalidSecurity", "FailedCheck")


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    for key, quoted, plain in _PARAMETER.findall(text):
        yield key.lower(), quoted or plain


def _has_auth(asked: dict[str, str]) -> bool:
    return "auth" in [one.strip() for one in asked.get("qop", "auth").split(",")]


def _hashed(algorithm: str, text: str) -> str:
    return _HASHES[algorithm](text.encode()).hexdigest()


def _quoted(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace('"', '\\"')


def _any_certificate() -> ssl.SSLContext:
    """Cameras sign their own certificates; what is sent is a digest of the password."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
