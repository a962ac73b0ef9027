"""Every TOML and Python block of README and docs does what it says: it is read or run here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.config.load import parse_config
from edge.models.shipped import FOLDER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Any]:
    return list(_blocks(language))


def _blocks(language: str) -> Iterator[Any]:
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text()):
            if match[2] == language:
                line = page.read_text()[: match.start()].count("\n") + 1
                yield pytest.param(match[3], id=f"{page.relative_to(ROOT)}:{line}")


def completed(raw: dict[str, Any]) -> dict[str, Any]:
    """A part of a configuration with what it leaves out: a model, and a source for each stream."""
    if not {"model", "models"} & raw.keys():
        raw = {**raw, "model": {"path": "model.onnx"}}
    streams = raw.get("streams") or [{}]
    return {**raw, "streams": [{"name": f"stream-{n}", "source": "0", **one} for n, one in enumerate(streams)]}


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_toml_block_is_a_configuration_that_is_accepted(text: str) -> None:
    parse_config(completed(tomllib.loads(text)), where="docs", text=text)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples speak of."""
    folder = tmp_path_factory.mktemp("docs")
    for suffix in ("onnx", "json"):
        shutil.copy(FOLDER / f"street-nano-int8.{suffix}", folder / f"yolo11n.{suffix}")
    picture = np.full((180, 320, 3), 90, np.uint8)
    cv2.imwrite(str(folder / "street.jpg"), picture)
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 180))
    for _ in range(5):
        writer.write(picture)
    writer.release()
    source = "synthetic://street?seed=1&size=320x180&frames=5"
    (folder / "edge.toml").write_text(
        f'version = 1\n[model]\npath = "{folder}/yolo11n.onnx"\n[[streams]]\nname = "door"\nsource = "{source}"\n'
    )
    return folder


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_block_runs(text: str, desk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=desk, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
