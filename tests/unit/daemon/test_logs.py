"""Secrets leave no trace in log lines, whoever writes them and however they are encoded."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.addresses.secrets import Redactor, read_secret, redacted, register, register_uri, with_credentials
from edge.addresses.uris import masked
from edge.config.load import parse_config
from edge.daemon import logs
from edge.daemon.credentials import with_secrets
from edge.errors import ConfigError

CANARY = "Zq9/c4n@ry:w#rd? +%"
PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What a handler with our formatter writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.TextFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


ENCODINGS = [
    ("plain", lambda text: text),
    ("percent", lambda text: quote(text, safe="")),
    ("percent, slashes kept", quote),
    ("percent, lower case", lambda text: quote(text, safe="").lower()),
    ("percent, twice", lambda text: quote(quote(text, safe=""), safe="")),
    ("form", quote_plus),
    ("json", lambda text: json.dumps(text)[1:-1]),
    ("repr", lambda text: repr(text)[1:-1]),
    ("hex", lambda text: text.encode().hex()),
]


@pytest.mark.parametrize(("name", "encode"), ENCODINGS, ids=[name for name, _ in ENCODINGS])
def test_a_registered_value_is_found_in_every_encoding(name: str, encode: object) -> None:
    redactor = Redactor()
    redactor.register(CANARY)
    text = encode(CANARY)  # type: ignore[operator]
    assert text not in redactor(f"before {text} after")


@pytest.mark.parametrize("user", ["", "admin:", "a-user:", "operator:"])
def test_base64_of_user_and_password_is_found_however_it_is_aligned(user: str) -> None:
    redactor = Redactor()
    redactor.register(CANARY)
    encoded = base64.b64encode(f"{user}{CANARY}".encode()).decode()
    cleaned = redactor(f"Authorization: Basic {encoded}")
    secret_part = encoded[(len(user) * 4 + 2) // 3 :]
    pieces = [secret_part[start : start + 6] for start in range(len(secret_part) - 6)]
    assert not [piece for piece in pieces if piece in cleaned]


@given(PASSWORDS)
def test_no_registered_password_survives(password: str) -> None:
    redactor = Redactor()
    redactor.register(password)
    line = f"x{password}y {quote(password, safe='')} {json.dumps(password)} {password!r}"
    cleaned = redactor(line)
    assert set(password) == {"*"} or password not in cleaned
    assert quote(password, safe="") not in cleaned


@pytest.mark.parametrize(
    "uri", [f"rtsp://admin:{quote(CANARY, safe='')}@cam/1", f"http://cam/?token={quote(CANARY, safe='')}"]
)
def test_registering_an_address_registers_what_is_secret_in_it(uri: str) -> None:
    register_uri(uri)
    assert CANARY not in redacted(f"401 for {CANARY}")
    assert redacted("the camera at cam") == "the camera at cam"


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://admin:pa/ss@cam/1",
        "rtsp://admin:pa?ss@cam/1",
        "rtsp://admin:pa#ss@cam/1",
        'gst:rtspsrc location=rtsp://cam/1 user-id=x user-pw="pa ss" ! appsink',
        "http://cam/#token=pass",
        "http://cam/?password=pa;ss",
        "http://cam/?password=pa#ss",
    ],
)
def test_passwords_that_break_the_rules_of_addresses_are_masked_too(uri: str) -> None:
    assert "ss" not in masked(uri).replace("password", "").replace("rtspsrc", "")


def test_an_address_in_the_wrong_place_of_a_configuration_is_masked() -> None:
    stream = {"name": "door", "source": "0", "isolation": "http://admin:two canary0x7f words@cam/1"}
    with pytest.raises(ConfigError, match=r"isolation = .*: input should be") as found:
        parse_config({"model": {"path": "m.onnx"}, "streams": [stream]}, where="x")
    assert "canary0x7f" not in str(found.value)


def test_exceptions_are_cleaned_with_their_causes(lines: io.StringIO) -> None:
    register(CANARY)
    try:
        try:
            raise OSError(f"cannot open rtsp://u:{quote(CANARY, safe='')}@cam/1")
        except OSError as error:
            raise ValueError(f"password {CANARY} refused") from error
    except ValueError:
        logging.getLogger("some.library").exception("failed with %s", CANARY)
    text = lines.getvalue()
    assert "Traceback" in text
    assert "ValueError" in text
    assert CANARY not in text
    assert quote(CANARY, safe="") not in text


def test_arguments_of_any_type_are_cleaned(lines: io.StringIO) -> None:
    register(CANARY)
    logging.getLogger("x").debug("%s %r %s", {"password": CANARY}, [CANARY], Path(f"/run/{CANARY}"))
    assert CANARY not in lines.getvalue()
    assert repr(CANARY)[1:-1] not in lines.getvalue()


def test_json_lines_are_json_and_clean() -> None:
    register(CANARY)
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "door: %s", (f'"{CANARY}"\n',), None)
    facts = json.loads(logs.JsonFormatter().format(record))
    assert facts["level"] == "warning"
    assert facts["message"] == 'door: "***"\n'


def test_unexpected_exceptions_are_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    register(CANARY)
    hooks, level = (sys.excepthook, threading.excepthook), logging.getLogger().level
    kept = list(logging.getLogger().handlers)
    try:
        logs.set_up(logging.INFO)
        sys.excepthook(ValueError, ValueError(CANARY), None)
    finally:
        sys.excepthook, threading.excepthook = hooks
        logging.getLogger().handlers[:] = kept
        logging.getLogger().setLevel(level)
        logging.captureWarnings(False)
    text = capsys.readouterr().err
    assert "unexpected ValueError" in text
    assert CANARY not in text


def test_ordinary_text_stays_as_it_is() -> None:
    assert redacted("door: 25.0 fps in, 1280x720, see docs/gpu.md") == "door: 25.0 fps in, 1280x720, see docs/gpu.md"


# where secrets come from


def test_a_password_file_goes_into_the_address_of_its_stream_only(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(CANARY + "\n")
    stream = {"name": "a", "source": "rtsp://old:gone@cam:554/1", "username": "me@home"}
    raw = {"model": {"path": "m.onnx"}, "streams": [{**stream, "password_file": str(tmp_path / "password")}]}
    config = with_secrets(parse_config(raw, where="x"))
    assert config.streams[0].source == f"rtsp://me%40home:{quote(CANARY, safe='')}@cam:554/1"
    assert CANARY not in redacted(CANARY)


def test_a_bare_name_is_one_of_systemds_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("a-token-of-systemd")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(Path("token"), "server.token_file") == "a-token-of-systemd"


def test_a_file_that_is_no_secret_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"key: .*nothing cannot be read \(No such file or directory\); expected a file"
    ):
        read_secret(tmp_path / "nothing", "key")
    (tmp_path / "short").write_text("abc")
    with pytest.raises(ConfigError, match="holds fewer than 16 characters; run: openssl rand -hex 16"):
        read_secret(tmp_path / "short", "key", min_chars=16)


def test_only_network_addresses_take_a_password() -> None:
    with pytest.raises(ConfigError, match=r"clip.mp4: only network addresses take a username"):
        with_credentials("clip.mp4", "a", "b")


@pytest.mark.parametrize(
    "change",
    [
        {"source": ["rtsp://u:Zq9canary@cam/1"]},
        {"source": "x", "frames": "rtsp://u:Zq9canary@cam/1"},
        {"source": "x", "model": "rtsp://u:Zq9canary@cam/1"},
        {"source": "x", "sinks": "http://h/?token=Zq9canary"},
    ],
)
def test_a_wrong_value_is_quoted_without_its_password(change: dict[str, object]) -> None:
    raw = {"model": {"path": "m.onnx"}, "streams": [{"name": "a", **change}]}
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, where="edge.toml")
    assert "Zq9canary" not in str(caught.value)
