"""``edge users`` and ``edge audit``: a password comes from the prompt or standard input, and every change is noted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import run_command
from edge.users.file import read_users, token_hash
from edge.users.passwords import is_right

PASSWORD = "correct horse battery"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(
        f'state_dir = "{tmp_path}"\n[model]\npath = "m.onnx"\n[[streams]]\nname = "door"\nsource = "synthetic://street"\n'
        f'[server]\nenabled = true\nusers_file = "{tmp_path}/users.json"\n'
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    return path


def run(config: Path, *arguments: str) -> int:
    return run_command([arguments[0], *arguments[1:], "--config", str(config)])


def test_a_user_is_added_changed_and_removed_and_each_step_is_noted(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "users.json"
    assert run(config, "users", "add", "anna", "--role", "view", "--role", "door=operate") == 0
    anna = read_users(path)["anna"]
    assert dict(anna.rights.roles) == {"*": "view", "door": "operate"}
    assert is_right(anna.password, PASSWORD) and path.stat().st_mode & 0o777 == 0o600
    assert run(config, "users", "roles", "anna", "--role", "door=admin") == 0
    assert dict(read_users(path)["anna"].rights.roles) == {"door": "admin"}
    assert read_users(path)["anna"].generation == anna.generation
    assert run(config, "users", "end-sessions", "anna") == 0
    assert read_users(path)["anna"].generation != anna.generation
    monkeypatch.setattr("sys.stdin", io.StringIO("another long password\n"))
    assert run(config, "users", "passwd", "anna") == 0
    assert is_right(read_users(path)["anna"].password, "another long password")
    capsys.readouterr()
    assert run(config, "users", "list") == 0
    assert capsys.readouterr().out == "anna: door = admin (password)\n"
    assert run(config, "users", "remove", "anna") == 0
    assert read_users(path) == {}
    capsys.readouterr()
    assert run(config, "audit", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [line["what"] for line in told] == [
        f"edge users {action}" for action in ("remove", "passwd", "end-sessions", "roles", "add")
    ]
    assert all(line["user"] == "anna" and line["who"].endswith("of this machine") for line in told)
    assert PASSWORD not in (tmp_path / "audit.jsonl").read_text()


def test_a_token_is_shown_once_and_kept_as_a_hash(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, "users", "add", "robot", "--token") == 0
    token = capsys.readouterr().out.strip()
    user = read_users(tmp_path / "users.json")["robot"]
    assert user.token == token_hash(token) and len(token) >= 43 and not user.password
    assert token not in (tmp_path / "users.json").read_text() + (tmp_path / "audit.jsonl").read_text()
    assert run(config, "users", "add", "guest", "--vouched") == 0
    capsys.readouterr()
    assert run(config, "users") == 0
    assert capsys.readouterr().out == "robot: * = view (token)\nguest: * = view (vouched for)\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add"], "expected list, or one of add, list, remove, passwd, roles, end-sessions with a name"),
        (["promote", "anna"], "found promote anna"),
        (["add", "../anna"], "a name is expected to be of 1 to 64 letters"),
        (["add", "anna", "--role", "root"], "expected a role of none, view, operate, admin for '*', found 'root'"),
        (["remove", "anna"], "anna is no user; the users are: none"),
        (["roles", "anna"], "anna is no user"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    config: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, "users", *arguments) == 2
    told = capsys.readouterr().err
    assert words in told.replace("\n", " ") and "Traceback" not in told


@pytest.mark.parametrize("password", ["", "short", "x" * 300])
def test_a_password_that_is_too_short_or_long_is_refused(
    config: Path, tmp_path: Path, password: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    assert run(config, "users", "add", "anna") == 2
    assert "expected a password of 10 to 256 characters" in capsys.readouterr().err
    assert not (tmp_path / "users.json").exists()


def test_what_cannot_be_noted_is_not_done(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    assert run(config, "users", "add", "anna") == 1
    assert "the audit log cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "users.json").exists()


def test_no_option_takes_a_password(config: Path) -> None:
    command = [sys.executable, "-c", "from edge.cli import main; main()", "users", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--password" not in told


def test_a_configuration_without_users_says_what_to_write(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config.read_text().replace("users_file", "# users_file")
    config.write_text(text)
    assert run(config, "users") == 2
    assert 'it names no users; add users_file = "/var/lib/edge/users.json" to [server]' in capsys.readouterr().err
    assert run(config, "audit") == 2
