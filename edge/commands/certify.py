"""``edge certify``: what a watch log proves about a stretch of time, as a file; and the check of such a file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import DataError, UsageError

STATE = Path("/var/lib/edge")


def certify(
    name: Annotated[str, typer.Argument(help="Of the camera.", show_default=False)] = "",
    start: Annotated[str, typer.Argument(metavar="FROM", help="2026-11-30T02:00, or 02:00 of today.")] = "",
    end: Annotated[str, typer.Argument(metavar="TO", help="As FROM.")] = "",
    written: Annotated[Path | None, typer.Option("--out", "-o", help="Where the certificate goes.")] = None,
    state: Annotated[Path, typer.Option(help="The daemon's state folder (state_dir).")] = STATE,
    check: Annotated[Path | None, typer.Option(help="Check a certificate, on any machine.")] = None,
    key: Annotated[str | None, typer.Option(help="With --check: the fingerprint that its device is known by.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove what a camera saw, and what not."""
    if check is not None:
        _check(check, key, as_json)
        return
    if not (name and start and end):
        raise UsageError("expected a camera and two times: edge certify door 02:00 03:00")
    certificate = _made(name, time_of(start), time_of(end), state)
    path = written or Path(f"{name}-{certificate['statement']['from'][:16].replace(':', '')}.certificate.json")
    from edge.watchlog.certificate import write_certificate

    try:
        write_certificate(path, certificate)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None
    _tell(certificate, as_json)
    err.print(f"{path}; to check it on any machine: edge certify --check {path.name}")


def _made(name: str, start_ns: int, end_ns: int, state: Path) -> dict[str, Any]:
    from edge.watchlog.certificate import certify as certificate_of
    from edge.watchlog.chain import LOGS
    from edge.watchlog.keys import KEY_NAME, DeviceKey

    if not start_ns < end_ns:
        raise UsageError("the second time is expected after the first")
    try:
        device = DeviceKey.of_folder(state)
    except OSError as error:
        raise DataError(f"{state / KEY_NAME}: cannot be read ({error.strerror}); run as the daemon's user") from None
    if Path(name).name != name:
        raise UsageError(f"{name!r} is no name of a camera")
    return certificate_of(state / LOGS / name, name, device, start_ns, end_ns)


def _check(path: Path, expected: str | None, as_json: bool) -> None:
    from edge.watchlog.certificate import check_certificate
    from edge.watchlog.keys import fingerprint

    certificate = check_certificate(path)
    found = fingerprint(certificate["key"])
    if expected is not None and "".join(expected.split()).lower() != found.replace(" ", ""):
        raise DataError(f"{path}: is whole, and signed by another device: {found}")
    _tell(certificate, as_json)
    if expected is None:
        err.print("whole as signed; compare the fingerprint with that of the device, or give it as --key")


def _tell(certificate: dict[str, Any], as_json: bool) -> None:
    from edge.watchlog.keys import fingerprint
    from edge.watchlog.statement import sentence_of

    statement = certificate["statement"]
    if as_json:
        print_json({**statement, "fingerprint": fingerprint(certificate["key"])})
        return
    out.print(sentence_of(statement))
    for event, count in statement["events"].items():
        out.print(f"  {event}: {count}")
    for one in statement["happened"]:
        out.print(f"  {one['at']}: {one['what']}")
    for facts in statement["facts"]:
        hashes = ", ".join(f"{name} {facts[name][:12]}" for name in ("model", "config", "masks") if facts[name])
        out.print(f"  with {hashes}, edge {facts['version']}")
    out.print(f"  signed by {fingerprint(certificate['key'])}")


def time_of(text: str) -> int:
    """Nanoseconds of the wall clock: an ISO time, or one of today; of this machine's zone where it names none.

    Raises:
        UsageError: it is no time.
    """
    today = datetime.now().astimezone().date().isoformat()
    full = text if "-" in text[:8] else f"{today}T{text}"
    try:
        found = datetime.fromisoformat(full.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"{text!r} is no time; expected 2026-11-30T02:00, or 02:00 of today") from None
    return round(found.timestamp()) * 1_000_000_000
