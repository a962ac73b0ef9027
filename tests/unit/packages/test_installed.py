"""Messages name the command that fits how this copy was installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edge.packages import installed


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    monkeypatch.setattr(installed, "_origin", lambda: facts)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    return facts


def test_from_an_index_it_is_the_package(origin: dict[str, Any]) -> None:
    assert installed.add_extra("train") == "pip install 'edgeloop[train]'"


@pytest.mark.parametrize(("is_editable", "option"), [(True, "-e "), (False, "")])
def test_from_a_checkout_it_is_the_folder(
    origin: dict[str, Any], is_editable: bool, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    origin.update({"url": folder.as_uri(), "dir_info": {"editable": is_editable}})
    assert installed.add_extra("events") == f"pip install {option}'{folder}[events]'"
    monkeypatch.chdir(folder)
    assert installed.add_extra("events") == f"pip install {option}'.[events]'"


def test_a_checkout_that_is_gone_is_not_named(origin: dict[str, Any], tmp_path: Path) -> None:
    origin.update({"url": (tmp_path / "gone").as_uri(), "dir_info": {"editable": True}})
    assert installed.add_extra("train") == "pip install 'edgeloop[train]'"


def test_outside_of_an_activated_environment_its_own_pip_is_named(
    origin: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.chdir(tmp_path)
    assert installed.add_extra("train") == ".venv/bin/pip install 'edgeloop[train]'"
