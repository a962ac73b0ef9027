"""The wheel and the source archive hold all that a user needs, and pass the index's own check."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from needs import COMPILED, need

# both archives are made, and the parts in C with them
pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
NEEDED = (
    "edge/systemd/edge.toml",
    "edge/systemd/edge.service",
    "edge/systemd/install.sh",
    "edge/models/street-nano-int8.onnx",
    "edge/web/index.html",
    "edge/engines/cuda/kernels.cu",
    "edge/py.typed",
)
C_PARTS = {"_boxes", "_lines", "_tracks"}
SOURCES = ("setup.py", *(f"edge/compiled/{name}.c" for name in C_PARTS), "edge/compiled/buffers.h")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives; built from what git would hand out, so that no leftover gets in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    files = [name for name in names if (ROOT / name).exists()]
    subprocess.run(["tar", "-C", str(ROOT), "-cf", str(source / "all.tar"), *files], check=True)
    subprocess.run(["tar", "-C", str(source), "-xf", str(source / "all.tar")], check=True)
    run(sys.executable, "-m", "build", "--outdir", out, "--no-isolation", source)
    return out


def test_both_pass_the_check_of_the_index(built: Path) -> None:
    archives = sorted(built.iterdir())
    assert {path.suffix for path in archives} == {".gz", ".whl"}
    assert run(sys.executable, "-m", "twine", "check", "--strict", *archives).count("PASSED") == 2


def test_configuration_units_and_install_script_are_inside(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert set(NEEDED) <= set(zipfile.ZipFile(wheel).namelist())
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {*NEEDED, *SOURCES} <= names


def test_the_parts_in_c_are_inside_where_a_compiler_is(built: Path) -> None:
    need(COMPILED)
    (wheel,) = built.glob("*.whl")
    inside = {Path(name).name.partition(".")[0] for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")}
    assert inside >= C_PARTS


def test_without_a_compiler_it_is_built_without_them(tmp_path: Path) -> None:
    folders = ["--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    command = [sys.executable, "setup.py", "-q", "build_ext", *folders]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "CC": "no-compiler"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.so"))
