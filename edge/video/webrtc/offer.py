"""What is asked of an SDP text before aiortc reads it, and the candidates that can be reached."""

from __future__ import annotations

import ipaddress
import re

from edge.errors import UsageError

# a browser offers one or two per network; each is an address that this device will send checks to
MAX_CANDIDATES = 16
_CANDIDATE = re.compile(
    r"^a=candidate:(?P<head>\S+ 1 udp \d+) (?P<host>\S+) (?P<port>\d+) typ (?P<kind>host|srflx|prflx)\b",
    re.IGNORECASE,
)


def checked_offer(sdp: str, asked_from: str) -> str:
    """The offer with candidates that can be reached.

    Browsers hide their address behind a ``.local`` name, which only multicast DNS can tell; the address that the
    request came from takes its place. Candidates that are no UDP addresses are left out.

    Args:
        sdp: the offer.
        asked_from: address of the client.

    Raises:
        UsageError: it is not an offer to receive one video, holds no candidate, or a character that has no place in it.
    """
    given = lines_of(sdp)
    kinds = media_of(given)
    if kinds.count("video") != 1 or set(kinds) - {"video", "audio"} or len(kinds) > 2:
        raise UsageError(f"expected an SDP offer with one video, found {', '.join(kinds[:8])[:80] or 'no media'}")
    lines: list[str] = []
    num_candidates = 0
    for line in given:
        if not line.lower().startswith("a=candidate:"):
            lines.append(line)
            continue
        reachable = _reachable(line, asked_from)
        if reachable is not None and num_candidates < MAX_CANDIDATES:
            num_candidates += 1
            lines.append(reachable)
    if not num_candidates:
        raise UsageError(
            "the offer holds no UDP candidate; send it when iceGatheringState is complete (trickle ICE is not spoken)"
        )
    return "\r\n".join(lines) + "\r\n"


def lines_of(sdp: str) -> list[str]:
    """The lines of an SDP text, whichever way it is split.

    RFC 8866 ends lines with CRLF and lets LF pass. Python's ``splitlines``, with which aiortc reads, ends them also at
    a form feed, at U+2028 and others: what is one line for one reader and several for another is refused.

    Raises:
        UsageError: there is a control character or such a line end.
    """
    lines = sdp.replace("\r\n", "\n").removesuffix("\n").split("\n")
    for line in lines:
        if not line.isprintable():
            odd = next(letter for letter in line if not letter.isprintable())
            raise UsageError(f"the SDP text holds the character U+{ord(odd):04X}, which has no place in it")
    return lines


def media_of(lines: list[str]) -> list[str]:
    """The kinds of media that the lines of an SDP text name, such as video."""
    return [line[2:].partition(" ")[0] for line in lines if line[:2].lower() == "m="]


def wants_sound(offer: str) -> bool:
    """Whether a checked offer, or an answer, asks for sound."""
    lines = lines_of(offer)
    start = next((at for at, line in enumerate(lines) if line.lower().startswith("m=audio")), None)
    if start is None:
        return False
    end = next((at for at in range(start + 1, len(lines)) if lines[at].lower().startswith("m=")), len(lines))
    # a place for sound that is switched off, sends only, or is refused (RFC 8829, 5.3.1)
    if lines[start].split(" ")[1:2] == ["0"]:
        return False
    return not {"a=inactive", "a=sendonly"} & {line.lower() for line in lines[start:end]}


def _reachable(line: str, asked_from: str) -> str | None:
    found = _CANDIDATE.match(line)
    if found is None:
        return None
    host = asked_from if found["host"].lower().endswith(".local") else found["host"]
    if not _is_address(host) or not 0 < int(found["port"]) < 1 << 16:
        return None
    return f"a=candidate:{found['head']} {host} {found['port']} typ {found['kind']}"


def _is_address(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified)
