"""Every TOML and Python block of README and docs does what it says: it is read or run here."""

from __future__ import annotations

import json
import os
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


# the first line of a block that is a file of the package in extending.md
FILE = re.compile(r"# ((?:[\w.-]+/)*[\w-]+\.\w+)\n")
EXTENDING = ROOT / "docs" / "extending.md"
RULE = re.compile(r"\|(?: *:?-+:? *\|)+")
NO_BAR = re.compile(r"`[^`]*`|\\\|")


def blocks(language: str) -> list[Any]:
    return list(_blocks(language))


def _blocks(language: str) -> Iterator[Any]:
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text()):
            if match[2] == language and not match[3].startswith("# pyproject.toml\n"):
                line = page.read_text()[: match.start()].count("\n") + 1
                yield pytest.param(match[3], id=f"{page.relative_to(ROOT)}:{line}")


def completed(raw: dict[str, Any]) -> dict[str, Any]:
    """A part of a configuration with what it leaves out: a model, and a source for each stream."""
    if not {"model", "models"} & raw.keys():
        raw = {**raw, "model": {"path": "model.onnx"}}
    streams = raw.get("streams") or [{}]
    return {**raw, "streams": [{"name": f"stream-{n}", "source": "0", **one} for n, one in enumerate(streams)]}


@pytest.fixture(scope="module", autouse=True)
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package of extending.md, as pip would install it; this process and its children find its parts."""
    folder = tmp_path_factory.mktemp("parts")
    for match in BLOCK.finditer(EXTENDING.read_text()):
        if (name := FILE.match(match[3])) is not None:
            (folder / name[1]).parent.mkdir(exist_ok=True)
            (folder / name[1]).write_text(match[3])
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    facts = folder / f"edge_parts-{project['version']}.dist-info"
    facts.mkdir()
    facts.joinpath("METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    facts.joinpath("entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
        yield folder


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


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "/api/streams/{name}/drawn" in (tmp_path / "reference/http-api.html").read_text()
    assert "stop_timeout_s" in (tmp_path / "reference/configuration.html").read_text()
    assert "open_model" in (tmp_path / "reference/python.html").read_text()
    # whoever reads it on the device is asked for nothing from elsewhere
    assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)"', (tmp_path / "index.html").read_text())


def test_every_message_that_is_explained_is_said() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "edge").rglob("*.py"))
    rows = re.findall(r"(?m)^\| `([^`]+)` \|", (ROOT / "docs/start/troubleshooting.md").read_text())
    assert len(rows) > 15
    assert [row for row in rows if row not in code] == []


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_block_runs(text: str, desk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=desk, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_parts_of_the_page_about_them_do_what_they_say(desk: Path, tmp_path: Path) -> None:
    """All of its configuration at once: four frames of a still picture through its engine, head, tracker and sink."""
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    config: dict[str, Any] = {"streams": [{"name": "door"}]}
    for match in BLOCK.finditer(EXTENDING.read_text()):
        if match[2] == "toml" and FILE.match(match[3]) is None:
            raw = tomllib.loads(match[3])
            config["streams"][0].update((raw.pop("streams", None) or [{}])[0])
            config.update(raw)
    manifest = json.loads((tmp_path / "yolo11n.json").read_text())
    (tmp_path / "yolo11n.json").write_text(json.dumps({**manifest, "head": "plain-boxes"}))
    code = f"""
import json, sys
from edge import Pipeline
from edge.config.load import parse_config
pipeline = Pipeline(parse_config({config!r}, where="page"))
pipeline.run()
parts = pipeline.streams["door"].stats()["parts"].items()
print(json.dumps([(name, part["state"], part["failures"]) for name, part in parts]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "door.csv").read_text().splitlines()[-1].startswith("door,4,")
    names = (
        *("door: tracker 'by-place'", "door: sink 'csv'", "door: stage 'crowd'"),
        *("yolo11n.onnx: engine 'plain-ort'", "door: head 'plain-boxes'"),
    )
    assert json.loads(done.stdout) == [[name, "on", 0] for name in names]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_row_of_a_table_has_as_many_cells_as_its_head(page: Path) -> None:
    num_bars = 0
    last = ""
    for number, line in enumerate(BLOCK.sub("", page.read_text()).split("\n"), 1):
        if RULE.fullmatch(line):
            num_bars = NO_BAR.sub("", last).count("|")
        if not line.startswith("|"):
            num_bars = 0
        elif num_bars:
            assert NO_BAR.sub("", line).count("|") == num_bars, f"{number}: {line}"
        last = line
