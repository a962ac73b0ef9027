"""The one OpenVINO of this process, and what it has compiled once, kept for the next start: a tenth of the time.

OpenVINO's own cache (``CACHE_DIR``) takes a damaged file for a whole one; here a file is used only if its hash is
right.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openvino as ov

from edge.addresses.printable import first_line
from edge.engines.trial import processor
from edge.files import cache_folder, parse_json, sha256_of, write_atomic
from edge.models.manifest import content_hash

log = logging.getLogger(__name__)
MAX_KEPT = 20
_core_lock = threading.Lock()
_cores: list[Any] = []


def the_core() -> Any:
    """The ``Core`` of this process: made once, and never dropped.

    Its CPU plugin gives the thread that makes it a signal stack of its own and frees that when it is dropped, in
    whichever thread that is: the next signal to the first thread then ends the process, or is written over other
    memory. So it is made by a thread that ends at once, and stays.
    """
    with _core_lock:
        if not _cores:
            with ThreadPoolExecutor(1, "openvino") as maker:
                _cores.append(maker.submit(_make_core).result())
        return _cores[0]


def _make_core() -> Any:
    core = ov.Core()
    # the plugin is made when something is asked of it
    core.get_versions("CPU")
    return core


def load_compiled(
    path: Path, hints: Mapping[str, Any], names_of: Callable[[Any], Sequence[str]]
) -> tuple[Any, Sequence[str]]:
    """A compiled model for the CPU and its output names.

    A kept model may call its outputs by other names of the same tensors, so the names are kept too.

    Args:
        path: the model file.
        hints: properties of the compiled model.
        names_of: chooses the output names of a model that was just compiled.

    Raises:
        RuntimeError: OpenVINO cannot load the model.
    """
    core = the_core()
    key = content_hash([sha256_of(path), ov.__version__, dict(hints), processor()])
    file = cache_folder() / "openvino" / f"{key[:32]}.blob"
    kept = _read(file)
    if kept is not None:
        names, blob = kept
        try:
            return core.import_model(blob, "CPU", dict(hints)), names
        except RuntimeError as error:
            log.info("%s is compiled again (%s)", path.name, first_line(error))
    compiled = core.compile_model(str(path), "CPU", dict(hints))
    fresh = names_of(compiled)
    _keep(file, compiled, fresh)
    return compiled, fresh


def _keep(file: Path, compiled: Any, names: Sequence[str]) -> None:
    """Keep a compiled model; where that is not possible nothing is lost but time."""
    try:
        blob = compiled.export_model().getvalue()
        header = json.dumps({"sha256": hashlib.sha256(blob).hexdigest(), "outputs": list(names)})
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, header.encode() + b"\n" + blob)
        kept = sorted(file.parent.glob("*.blob"), key=lambda other: other.stat().st_mtime)
        for old in kept[:-MAX_KEPT]:
            old.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        log.info("what OpenVINO compiled cannot be kept (%s)", error)


def _read(file: Path) -> tuple[list[str], bytes] | None:
    """Output names and model of a whole file."""
    try:
        head, _, blob = file.read_bytes().partition(b"\n")
        header = parse_json(head)
        is_whole = header["sha256"] == hashlib.sha256(blob).hexdigest()
        return ([str(name) for name in header["outputs"]], blob) if is_whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
