"""What the first bytes of an engine file tell without a GPU: classic plans, RTX plans, and the JSON of Ultralytics.

Plans begin with a tag (``ftrt`` classic, ``vtrt`` RTX); bytes 24 to 27 are the version, and in RTX plans bytes 16 to 23
are the size of the plan. Ultralytics puts a 4-byte length and that much JSON in front.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edge.engines.trt.api import TITLE, Flavour
from edge.errors import EngineError

TAGS: dict[bytes, Flavour] = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
HEADER_BYTES = 28
MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What an engine file says of itself.

    Attributes:
        version: of the TensorRT that built it: ``10.3.0.26``.
        offset: bytes in front of the plan, 0 unless Ultralytics wrote the file.
        num_bytes: length that the plan should have, None where the header does not say (classic).
        ultralytics: the JSON in front, empty without one.
    """

    flavour: Flavour
    version: str
    offset: int = 0
    num_bytes: int | None = None
    ultralytics: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def title(self) -> str:
        return f"{TITLE[self.flavour]} {self.version}"


def parse_header(data: bytes, where: str) -> PlanHeader:
    """Read the header at the start of an engine file.

    Args:
        data: the file, or at least its first megabyte.
        where: file name for messages.

    Raises:
        EngineError: it is no engine, or ends within the header.
    """
    ultralytics, offset = _ultralytics_prefix(data)
    plan = data[offset : offset + HEADER_BYTES]
    flavour = TAGS.get(plan[:4])
    if flavour is None:
        raise EngineError(f"{where}: {_what_it_is(data)}, expected a TensorRT engine; run: edge build MODEL.onnx")
    if len(plan) < HEADER_BYTES:
        raise EngineError(
            f"{where}: the engine ends after {len(plan)} bytes, within its header; copy it again, "
            "or run: edge build MODEL.onnx"
        )
    version = ".".join(str(part) for part in plan[24:28])
    num_bytes = int.from_bytes(plan[16:24], "little") if flavour == "tensorrt_rtx" else None
    return PlanHeader(flavour, version, offset, num_bytes, ultralytics)


def read_header(path: Path) -> PlanHeader:
    """As ``parse_header``, of a file.

    Raises:
        EngineError: it cannot be read, or is no engine.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + HEADER_BYTES + 4)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror}); run: edge build MODEL.onnx") from error
    return parse_header(data, path.name)


def read_plan(path: Path, header: PlanHeader) -> bytes:
    """The plan itself, without what Ultralytics puts in front."""
    return path.read_bytes()[header.offset :]


def _ultralytics_prefix(data: bytes) -> tuple[Mapping[str, Any], int]:
    length = int.from_bytes(data[:4], "little")
    if len(data) < 5 or data[:4] in TAGS or not 0 < length <= MAX_JSON_BYTES or data[4:5] != b"{":
        return MappingProxyType({}), 0
    try:
        fields = json.loads(data[4 : 4 + length])
    except (ValueError, RecursionError):
        return MappingProxyType({}), 0
    if not isinstance(fields, dict):
        return MappingProxyType({}), 0
    return MappingProxyType(fields), 4 + length


def _what_it_is(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if data[4:5] == b"{":
        return "the file has a JSON header and no engine behind it"
    if data[:8].isascii() and data[:8].strip()[:1] == b"{":
        return "the file is JSON"
    return f"the file begins with {data[:4].hex(' ')}"
