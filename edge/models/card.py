"""Model cards: the free-form JSON people put next to ONNX files. Only what is understood without doubt is taken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edge.models.manifest import Manifest, Provenance


def apply_card(manifest: Manifest, card: dict[str, Any], model: Path) -> Manifest:
    """Correct a proposed manifest by what the card states: classes, colour, normalisation, resize, licence."""
    changes: dict[str, Any] = {}
    classes = _classes(card, model)
    if classes:
        changes["classes"] = classes
    preprocess = card.get("preprocess")
    if isinstance(preprocess, dict):
        changes["input"] = manifest.input.model_copy(update=_input_changes(preprocess))
    if card.get("source") or card.get("licence"):
        changes["provenance"] = Provenance(
            dataset=str(card.get("trained_on", "")),
            source=_source(card.get("source")),
            terms=str(card.get("licence", "")),
        )
    return manifest.model_copy(update=changes)


def _classes(card: dict[str, Any], model: Path) -> tuple[str, ...]:
    named = card.get("classes")
    if isinstance(named, list):
        return tuple(str(name) for name in named)
    listed = card.get("classes_file")
    if not isinstance(listed, str):
        return ()
    path = model.parent / Path(listed).name
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def _input_changes(preprocess: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    colour = str(preprocess.get("colour", "")).lower()
    if colour in ("rgb", "bgr"):
        changes["colour"] = colour
    changes |= _scale(preprocess)
    resize = str(preprocess.get("resize", ""))
    if resize.startswith("letterbox"):
        changes["resize"] = "letterbox"
        changes["anchor"] = "top-left" if "top-left" in resize else "centre"
        pad = re.search(r"pad value (\d+)", resize)
        if pad:
            changes["pad"] = int(pad.group(1))
    elif resize.startswith(("stretch", "person crop stretched")):
        changes["resize"] = "stretch"
    if "resize" in changes:
        changes["interpolation"] = "antialias" if "area" in resize or "antialias" in resize else "bilinear"
    return changes


def _scale(preprocess: dict[str, Any]) -> dict[str, Any]:
    """Mean and std in grey levels from the written formula."""
    formula = str(preprocess.get("range", "")).replace(" ", "")
    shifted = re.match(r"\(x-(\d+\.?\d*)\)/(\d+\.?\d*)$", formula)
    if shifted:
        return {"mean": (float(shifted.group(1)),) * 3, "std": (float(shifted.group(2)),) * 3}
    if formula.startswith("0..255"):
        return {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    if formula in ("0..1", "x/255"):
        return {"mean": (0.0,) * 3, "std": (255.0,) * 3}
    mean, std = preprocess.get("mean"), preprocess.get("std")
    if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3:
        unit = 255.0 if formula.startswith("(x/255") else 1.0
        return {"mean": tuple(unit * float(x) for x in mean), "std": tuple(unit * float(x) for x in std)}
    return {}


def _source(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(str(value[key]) for key in ("repo", "commit", "path") if key in value)
    return str(value or "")
