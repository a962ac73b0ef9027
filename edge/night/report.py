"""The morning report: the newest shift and how it stands, for the API; and as a page with pictures, for people."""

from __future__ import annotations

import base64
import contextlib
import html
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.addresses.printable import printable
from edge.addresses.secrets import redacted_value
from edge.files import load_object, read_regular
from edge.night.frames import frames_of
from edge.night.shift import REPORTS, STAGES, WORK, Job, Progress, done_stages

MAX_PICTURE_BYTES = 1 << 20
STYLE = (
    "body{font:15px sans-serif;margin:2em auto;max-width:1000px;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:3px 12px 3px 0;text-align:right}td:first-child,td:nth-child(2),th:first-child{text-align:left}"
    "img{max-width:100%;display:block}figure{margin:0 0 1em}"
)


def last_report(folder: Path) -> dict[str, Any]:
    """The newest report; empty before the first."""
    names = sorted((folder / REPORTS).glob("*.json"))
    return load_object(names[-1]) if names else {}


def stand(folder: Path) -> dict[str, Any]:
    """How the shift stands, as JSON values: what the daemon does, the stages that are done, the kept frames."""
    state = load_object(folder / "state.json")
    job = Job.read(folder)
    progress = Progress.read(folder)
    done = done_stages(folder)
    shift = None
    if job is not None:
        left = [stage for stage in STAGES if stage not in done]
        stage = left[0] if left else "take over"
        shift = {"night": job.night, "stage": stage, "done": done, "tries": progress.tries, "cpu_s": progress.cpu_s}
    kept = Counter(one.camera for one in frames_of(folder))
    return {"phase": state.get("phase", "off"), "reason": state.get("reason", ""), "shift": shift, "frames": kept}


def told(folder: Path) -> dict[str, Any]:
    """What ``/api/night`` says; addresses without their passwords."""
    return {**stand(folder), "report": redacted_value(last_report(folder))}


def page(folder: Path) -> str:
    """The newest report as one page that needs nothing else."""
    report = redacted_value(last_report(folder))
    if not report:
        return _whole("No night has passed yet", "<p>The report of the first shift will stand here.")
    title = f"{report['night']}: {report['outcome']}"
    parts = [f"<p>{_text(report['reason'])}", _frames(report), *_judged(report.get("judged", {}))]
    parts += _pictures(folder / REPORTS / report["night"], report.get("judged", {}).get("pictures", []))
    return _whole(title, "".join(parts))


def _whole(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_text(title)}</title><style>{STYLE}</style><h1>{_text(title)}</h1>{body}"
    )


def _frames(report: Mapping[str, Any]) -> str:
    frames = report.get("frames", {})
    kept = ", ".join(f"{count} of {camera}" for camera, count in frames.get("cameras", {}).items()) or "none"
    reasons = ", ".join(f"{reason} {count}" for reason, count in frames.get("reasons", {}).items())
    labels = ", ".join(f"{count} {name}" for name, count in report.get("labels", {}).get("per_class", {}).items())
    spent = f"{report.get('cpu_s', 0):.0f} processor seconds"
    return f"<p>Frames: {_text(kept)} ({_text(reasons)}). Labels: {_text(labels or 'none')}. {spent}."


def _judged(judged: Mapping[str, Any]) -> Iterator[str]:
    rows = [(uri, one["first"], one["before"], one["after"]) for uri, one in judged.get("sealed", {}).items()]
    if site := judged.get("site"):
        rows.append((f"the site, {site['frames']} sealed frames", None, site["before"], site["after"]))
    if rows:
        yield _table(("AP50 on", "first", "before", "after"), rows)
    if found := judged.get("per_camera"):
        keys = ("camera", "class", "objects", "before", "after")
        yield "<h2>Found, per camera and class</h2>" + _table(keys, [tuple(one[key] for key in keys) for one in found])


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    titles = "".join(f"<th>{_text(name)}" for name in head)
    return f"<table><tr>{titles}{''.join('<tr>' + ''.join(_cell(value) for value in row) for row in rows)}</table>"


def _cell(value: object) -> str:
    shown = "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    return f"<td>{_text(shown)}"


def _pictures(place: Path, pictures: list[Mapping[str, str]]) -> Iterator[str]:
    """Those that are still there: a camera that was forgotten has none."""
    for one in pictures:
        with contextlib.suppress(OSError, ValueError):
            data = base64.b64encode(read_regular(place / one["file"], MAX_PICTURE_BYTES)).decode()
            yield f"<figure><img alt='' src='data:image/jpeg;base64,{data}'><figcaption>{_text(one['camera'])}"
            yield ": before, after</figure>"


def _text(value: str) -> str:
    return html.escape(printable(value))


def is_working(folder: Path) -> bool:
    """Whether a shift was begun and has not ended."""
    return (folder / WORK / "job.json").is_file()
