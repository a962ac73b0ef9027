"""Engine files tell what built them, whatever stands in front; everything else is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engines.trt.plan_header import PlanHeader, parse_header, read_header, read_plan
from edge.errors import EdgeError, EngineError


def plan(tag: bytes = b"ftrt", version: tuple[int, ...] = (10, 3, 0, 26), size: int = 64) -> bytes:
    body = tag + bytes(12) + size.to_bytes(8, "little") + bytes(version)
    return body + bytes(max(size - len(body), 0))


def ultralytics(fields: object, behind: bytes) -> bytes:
    text = json.dumps(fields).encode()
    return len(text).to_bytes(4, "little") + text + behind


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (plan(), PlanHeader("tensorrt", "10.3.0.26")),
        (plan(version=(8, 6, 2, 3)), PlanHeader("tensorrt", "8.6.2.3")),
        (plan(b"vtrt", (1, 7, 1, 116)), PlanHeader("tensorrt_rtx", "1.7.1.116", num_bytes=64)),
    ],
)
def test_a_plan_names_its_builder(data: bytes, expected: PlanHeader) -> None:
    assert parse_header(data, "x.engine") == expected


def test_the_header_of_a_real_rtx_plan() -> None:
    # the first 32 bytes of a plan that TensorRT for RTX 1.7.1.116 wrote, 479,788 bytes long
    data = bytes.fromhex("767472740000000002000000000000002c520700000000000107017476747274")
    assert parse_header(data, "x.engine") == PlanHeader("tensorrt_rtx", "1.7.1.116", num_bytes=479_788)


def test_the_json_of_ultralytics_is_read_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "yolo.engine"
    path.write_bytes(ultralytics({"imgsz": [640, 640], "stride": 32}, plan()))
    header = read_header(path)
    assert (header.flavour, header.version, header.ultralytics["stride"]) == ("tensorrt", "10.3.0.26", 32)
    assert read_plan(path, header) == plan()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty, expected a TensorRT engine; run: edge build"),
        (b"\x08\x07onnx", "the file begins with 08 07 6f 6e"),
        (b'{"schema": 1}', "the file is JSON"),
        (plan()[:20], "the engine ends after 20 bytes, within its header"),
        (b"ftrt", "the engine ends after 4 bytes"),
        (ultralytics({"stride": 32}, b""), "the file has a JSON header and no engine behind it"),
        (ultralytics({"stride": 32}, plan()[:9]), "the engine ends after 9 bytes"),
        (ultralytics([1, 2], plan()), "the file begins with"),
        ((500).to_bytes(4, "little") + b'{"stride"', "the file has a JSON header and no engine behind it"),
    ],
)
def test_what_is_no_engine_is_named(data: bytes, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        parse_header(data, "x.engine")


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        read_header(tmp_path / "none.engine")
    with pytest.raises(EngineError, match="cannot be read"):
        read_header(tmp_path)


@given(st.binary(max_size=80) | st.builds(lambda tail: b"ftrt" + tail, st.binary(max_size=40)))
def test_any_bytes_give_a_header_or_an_error_of_ours(data: bytes) -> None:
    try:
        header = parse_header(data, "x.engine")
    except EdgeError as error:
        assert str(error).startswith("x.engine: ")
    else:
        assert data[header.offset :][:4] in (b"ftrt", b"vtrt")


@given(st.binary(max_size=60), st.integers(0, 80))
def test_any_json_length_gives_a_header_or_an_error_of_ours(body: bytes, length: int) -> None:
    try:
        parse_header(length.to_bytes(4, "little") + b"{" + body, "x.engine")
    except EngineError as error:
        assert "\n" not in str(error)
