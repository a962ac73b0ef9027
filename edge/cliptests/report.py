"""What clip tests found, for CI (JUnit XML) and for people (a page with pictures side by side)."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import cv2
import numpy as np

from edge.addresses.printable import printable
from edge.addresses.secrets import redacted
from edge.cliptests.case import Case, SeenObject
from edge.cliptests.compare import SAME_TIME_S
from edge.cliptests.run import NS_PER_S, Verdict, frames_of, stream_of
from edge.errors import EdgeError

if TYPE_CHECKING:
    from edge.config.schema import Config
    from edge.types import UInt8

MAX_PICTURES = 6
WIDTH_PX = 560
STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:1180px}figure{display:inline-block;margin:0 8px 8px 0}"
    "img{width:560px;display:block}.no{color:#b00020}.yes{color:#176b2c}"
)
EXPECTED_BGR, FOUND_BGR = (60, 170, 40), (30, 30, 220)


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """One ``<testsuite>``; a test that differs has a ``<failure>`` with a line for each difference."""
    failed = sum(bool(one.differences) for one in verdicts)
    total_s = f"{sum(one.seconds for one in verdicts):.3f}"
    counts = {"tests": str(len(verdicts)), "failures": str(failed), "errors": "0", "time": total_s}
    suite = ElementTree.Element("testsuite", {"name": "edge test", **counts})
    for one in verdicts:
        case = ElementTree.SubElement(suite, "testcase", name=one.name, classname="clips", time=f"{one.seconds:.3f}")
        if one.differences:
            lines = [printable(redacted(difference.text)) for difference in one.differences]
            ElementTree.SubElement(case, "failure", message=lines[0]).text = "\n".join(lines)
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def page(folder: Path, verdicts: Sequence[Verdict], config: Config) -> str:
    """The page: each test, what differs, and what was expected next to what is seen now."""
    parts = [_section(folder / one.name, one, config) for one in verdicts]
    failed = sum(bool(one.differences) for one in verdicts)
    head = f"{failed} of {len(verdicts)} clips differ" if failed else f"{len(verdicts)} clips as expected"
    return (
        f"<!doctype html><meta charset=utf-8><title>{head}</title><style>{STYLE}</style><h1>{head}</h1>{''.join(parts)}"
    )


def _section(folder: Path, verdict: Verdict, config: Config) -> str:
    if not verdict.differences:
        return f"<h2>{html.escape(verdict.name)} <span class=yes>as expected</span></h2>"
    items = "".join(f"<li>{html.escape(printable(redacted(one.text)))}" for one in verdict.differences)
    pictures = "".join(_side_by_side(folder, verdict, config))
    return f"<h2>{html.escape(verdict.name)} <span class=no>differs</span></h2><ul>{items}</ul>{pictures}"


def _side_by_side(folder: Path, verdict: Verdict, config: Config) -> Iterator[str]:
    """Pairs of pictures at the moments that differ."""
    if verdict.seen is None:
        return
    times_s = sorted({time_s for one in verdict.differences for time_s in one.times_s})[:MAX_PICTURES]
    case = Case.read(folder)
    try:
        frames = list(_at(folder, case, config, times_s))
    except EdgeError:
        # what cannot be read was told as the difference
        return
    for time_s, image in frames:
        for title, objects, colour in (
            ("expected", case.objects, EXPECTED_BGR),
            ("now", verdict.seen.objects, FOUND_BGR),
        ):
            source = _drawn(image, _objects_at(objects, time_s), colour)
            yield f"<figure><img src='{source}'><figcaption>{title}, {time_s:.1f} s</figure>"
        yield "<br>"


def pictures(folder: Path, case: Case, config: Config, times_s: Sequence[float]) -> Iterator[tuple[float, str]]:
    """Moments of a test and their pictures, with what is expected in them, as ``data:`` addresses.

    Raises:
        EdgeError: the pictures cannot be read.
    """
    for time_s, image in _at(folder, case, config, times_s):
        yield time_s, _drawn(image, _objects_at(case.objects, time_s), EXPECTED_BGR)


def _at(folder: Path, case: Case, config: Config, times_s: Sequence[float]) -> Iterator[tuple[float, UInt8]]:
    waiting, first_ns = list(times_s), None
    for frame in frames_of(folder, case, stream_of(config, case), config):
        first_ns = frame.time_ns if first_ns is None else first_ns
        time_s = (frame.time_ns - first_ns) / NS_PER_S
        while waiting and time_s >= waiting[0] - SAME_TIME_S / 2:
            yield waiting.pop(0), np.array(frame.image)
        if not waiting:
            return


def _objects_at(objects: Sequence[SeenObject], time_s: float) -> list[SeenObject]:
    """Those of the nearest look."""
    nearest = min((one[0] for one in objects), key=lambda other: abs(other - time_s), default=0.0)
    return [one for one in objects if one[0] == nearest]


def _drawn(image: UInt8, objects: Sequence[SeenObject], colour: tuple[int, int, int]) -> str:
    """The picture with boxes, as a JPEG in a ``data:`` address."""
    scale = WIDTH_PX / image.shape[1]
    small = cv2.resize(image, (WIDTH_PX, max(1, round(image.shape[0] * scale))), interpolation=cv2.INTER_AREA)
    for _, name, *box in objects:
        left, top, right, bottom = (round(value * scale) for value in box)
        cv2.rectangle(small, (left, top), (right, bottom), colour, 2)
        cv2.putText(small, printable(name), (left, max(12, top - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1)
    return f"data:image/jpeg;base64,{base64.b64encode(cv2.imencode('.jpg', small)[1].tobytes()).decode()}"
