"""Draws the quantization report as one HTML page: tables, histograms as SVG, pictures inline. No script, no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np

from edge.models.manifest import Manifest
from edge.overlay import Overlay, StreamState, Theme
from edge.types import Frame, Prediction, Result, UInt8

Pairs: TypeAlias = Sequence[tuple[UInt8, Prediction, Prediction]]
METHOD_COLOURS = {
    "minmax": "#8b949e", "average": "#1f6feb", "percentile": "#a371f7", "entropy": "#d29922", "mse": "#2da44e",
}  # fmt: skip
SHOWN = 16
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1f2328;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #d0d7de;padding-bottom:.3rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .8rem .2rem 0;text-align:right}
td:first-child,th:first-child{text-align:left}th{font-weight:600;color:#59636e}tr+tr td{border-top:1px solid #eaeef2}
.big{display:flex;gap:2.5rem;flex-wrap:wrap}.big div{font-size:1.7rem;font-weight:600}
.big span{display:block;font-size:.8rem;color:#59636e;font-weight:400}
.bad{color:#cf222e}.good{color:#1a7f37}.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}
figure{margin:0}figcaption{font-size:.8rem;color:#59636e;overflow-wrap:anywhere}
img{width:100%}.pair{display:grid;grid-template-columns:1fr 1fr;gap:.5rem;margin-bottom:1rem}
"""


def render(content: dict[str, Any], pairs: Mapping[str, Pairs], manifest: Manifest) -> str:
    """The page.

    Args:
        content: of ``export.quantize.report.describe``.
        pairs: title → pictures as the float and as the quantized model see them.
        manifest: of the quantized model.
    """
    parts = [
        f"<h1>{_text(content['out'])}: INT8 of {_text(content['model'])}</h1>",
        _headline(content),
        _section("Accuracy", _metrics(content) + _classes(content)),
        _section("Clip methods", _figures("method", content["metric"], sorted(content["methods"].items()))),
        _section("Layers, most sensitive first", _layers(content)),
        _section("Search", _trials(content)) if content["trials"] else "",
        _section("TensorRT", _targets(content)),
        *(_section(f"{title}: float left, INT8 right", _pictures(shown, manifest)) for title, shown in pairs.items()),
        _section("Values entering the most sensitive layers (log counts, clip points)", _histograms(content)),
    ]
    body = "\n".join(parts)
    title = _text(content["out"])
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{body}</html>\n'


def _headline(content: dict[str, Any]) -> str:
    sizes = content["bytes"]
    facts = [
        (f"{content['metric']}, float", f"{content['fp32']:.4f}"),
        (f"{content['metric']}, INT8", f"{content['int8']:.4f}"),
        ("change", f"{-content['drop']:+.2%}"),
        ("seen as float sees it", _share(content["agreement"])),
        ("the same on footage", _share(content["footage_agreement"])),
        ("size", f"{sizes['fp32'] / 1e6:.2f} → {sizes['int8'] / 1e6:.2f} MB"),
        ("layers in INT8", f"{content['num_int8']} of {content['num_layers']}"),
    ]
    for row in content["latency"]:
        words = "thread" if row["threads"] == 1 else "threads"
        facts.append(
            (f"{content['engine']}, {row['threads']} {words}", f"{row['fp32_ms']:.1f} → {row['int8_ms']:.1f} ms")
        )
    cells = "".join(f"<div>{_text(value)}<span>{_text(name)}</span></div>" for name, value in facts)
    pictures, frames = content["dataset"], content["calibration"]
    note = (
        f"Judged on {pictures['pictures']} pictures of {pictures['name']} that calibration has not seen; "
        f"{frames['frames']} calibration frames from {frames['origin']}; flavour {content['flavour']}, "
        f"clip method {content['method']}."
    )
    return f'<div class="big">{cells}</div><p>{_text(note)}</p>'


def _metrics(content: dict[str, Any]) -> str:
    after = content["metrics"]["int8"]
    rows = [(name, value, after.get(name)) for name, value in content["metrics"]["fp32"].items()]
    return _table(["metric", "float", "INT8", "change"], [(*row, _change(row[1], row[2])) for row in rows])


def _classes(content: dict[str, Any]) -> str:
    rows = [(row["class"], row["fp32"], row["int8"], _change(row["fp32"], row["int8"])) for row in content["per_class"]]
    table = _table(["class", "float", "INT8", "change"], rows)
    return f"<details><summary>{len(rows)} classes</summary>{table}</details>"


def _layers(content: dict[str, Any]) -> str:
    rows = [
        (
            layer["key"],
            layer["op"],
            "×".join(str(size) for size in layer["shape"]),
            f"{layer['snr_db']:.1f}",
            f"{layer['macs'] / 1e6:.1f}",
            "float" if layer["is_float"] else "INT8",
        )
        for layer in content["layers"]
    ]
    head = ["layer", "operator", "weight", "signal/noise dB", "M multiplications", "runs in"]
    rest = f"<details><summary>{len(rows) - SHOWN} more</summary>{_table(head, rows[SHOWN:])}</details>"
    return _table(head, rows[:SHOWN]) + (rest if len(rows) > SHOWN else "")


def _trials(content: dict[str, Any]) -> str:
    return _figures("layers in float", content["metric"], [(row["float_layers"], row) for row in content["trials"]])


def _figures(first: str, metric: str, rows: Iterable[tuple[Any, dict[str, Any]]]) -> str:
    head = [first, metric, "seen as float sees it", "the same on footage"]
    return _table(
        head, [(name, row["metric"], _share(row["agreement"]), _share(row["on_footage"])) for name, row in rows]
    )


def _targets(content: dict[str, Any]) -> str:
    if content["flavour"] == "cpu":
        return "<p>This file is for CPUs. The same ranges give TensorRT's: edge quantize --flavour fp32 or fp16.</p>"
    verdicts = _table(
        ["version", "parses"], [(name, "yes" if ok else "no") for name, ok in content["accepted"].items()]
    )
    rows = [
        (found["severity"], found["message"], ", ".join(found["targets"]), len(found["nodes"]))
        for found in content["findings"]
    ]
    return verdicts + (_table(["", "finding", "for", "nodes"], rows) if rows else "")


def _pictures(pairs: Pairs, manifest: Manifest) -> str:
    drawn = []
    for image, *views in pairs:
        sides = "".join(f'<img alt="" src="{_inline(_draw(image, seen, manifest))}">' for seen in views)
        drawn.append(f'<div class="pair">{sides}</div>')
    return "".join(drawn)


def _draw(image: UInt8, prediction: Prediction, manifest: Manifest) -> UInt8:
    theme = Theme(trail_s=0, score=manifest.thresholds.score, has_status=False)
    frame = Frame("", 0, 0, 0, None, np.ascontiguousarray(image))
    return Overlay(manifest.classes, theme).draw(Result(frame, prediction), StreamState())


def _inline(image: UInt8) -> str:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _histograms(content: dict[str, Any]) -> str:
    legend = " ".join(f'<span style="color:{colour}">■ {name}</span>' for name, colour in METHOD_COLOURS.items())
    figures = "".join(
        f"<figure>{_svg(entry)}<figcaption>{_text(entry['layer'])}: {entry['low']:.3g} … {entry['high']:.3g}"
        "</figcaption></figure>"
        for entry in content["histograms"]
    )
    return f'<p>{legend}</p><div class="grid">{figures}</div>'


def _svg(entry: dict[str, Any]) -> str:
    bars: Sequence[float] = entry["bars"]
    peak = max(*bars, 1e-9)
    step = 240 / len(bars)
    heights = [76 * value / peak for value in bars]
    drawn = "".join(
        f'<rect x="{place * step:.1f}" y="{80 - height:.1f}" width="{step:.1f}" height="{height:.1f}"/>'
        for place, height in enumerate(heights)
        if height
    )
    width = max(entry["high"] - entry["low"], 1e-12)
    lines = "".join(
        f'<line x1="{240 * (edge - entry["low"]) / width:.1f}" x2="{240 * (edge - entry["low"]) / width:.1f}" '
        f'y1="0" y2="80" stroke="{METHOD_COLOURS[method]}" stroke-width="1.5"/>'
        for method, clip in entry["clip"].items()
        for edge in clip
        if edge
    )
    return f'<svg viewBox="0 0 240 80" width="100%" role="img"><g fill="#afb8c1">{drawn}</g>{lines}</svg>'


def _section(title: str, body: str) -> str:
    return f"<h2>{_text(title)}</h2>{body}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    top = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _change(before: float, after: float | None) -> str:
    return "" if after is None else f"{after - before:+.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    return html.escape(str(value))
