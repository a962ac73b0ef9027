"""The image for CPUs is built and run: not as root, from a read-only root, as process 1; it ends when it is told to."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minimal_root import make_base, pip_access
from needs import need

ROOT = Path(__file__).parents[2]
USER = 10001
pytestmark = [
    pytest.mark.soak,
    pytest.mark.real_server,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="an image is built as root here"),
]
CONFIG = """
state_dir = "/var/lib/edge"
[model]
path = "/opt/edge/models/street-nano-int8.onnx"
threads = 1
[[streams]]
name = "street"
source = "synthetic://street?seed=7&size=320x180&fps=10&live=1"
isolation = "process"
[server]
enabled = true
port = 8080
[events]
max_mb = 8
"""
# the root cannot be written, except for what compose.yaml gives; then the command is process 1
START = """
mount --bind {root} {root}
mount -o remount,bind,ro {root}
mount -t proc proc {root}/proc
mount --rbind /dev {root}/dev
mount -t tmpfs -o mode=1777 tmpfs {root}/tmp
mount -t tmpfs -o uid={user} tmpfs {root}/var/lib/edge
mount -t tmpfs tmpfs {root}/etc/edge
cp {config} {root}/etc/edge/edge.toml
exec chroot --userspec={user}:{user} {root} /usr/bin/env -i {environment} /opt/edge/bin/edge run /etc/edge/edge.toml
"""


class Buildah:
    """Buildah with images of its own, below a folder."""

    def __init__(self, folder: Path) -> None:
        self._start = [need("buildah"), "--root", str(folder / "images"), "--runroot", str(folder / "run")]

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        command = [*self._start, *(str(part) for part in arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    folder = tmp_path_factory.mktemp("containers")
    built = Buildah(folder)
    make_base(folder / "base.tar")
    (folder / "Base").write_text("FROM scratch\nADD base.tar /\n")
    built("bud", "--isolation", "chroot", "-f", folder / "Base", "-t", "localhost/base", folder)
    access = pip_access(folder)
    volumes = {str(access.config): "/etc/pip.conf", **access.mounts}
    mounts = [text for here, there in volumes.items() for text in ("--volume", f"{here}:{there}:ro")]
    arguments = ["--isolation", "chroot", "--format", "docker", "--build-arg", "BASE=localhost/base", *mounts]
    built("bud", *arguments, "-f", ROOT / "container" / "Containerfile", "-t", "localhost/edgeloop", ROOT)
    yield built
    built("rm", "--all")


@pytest.fixture(scope="module")
def container(buildah: Buildah) -> str:
    return buildah("from", "localhost/edgeloop").strip()


@pytest.fixture(scope="module")
def facts(buildah: Buildah) -> dict[str, Any]:
    """How the image says that it is run."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", "localhost/edgeloop"))["Docker"]["config"]
    return found


def test_the_image_says_how_it_is_run(facts: dict[str, Any]) -> None:
    assert facts["User"] == str(USER)
    assert facts["StopSignal"] == "SIGTERM"
    assert facts["Entrypoint"] == ["/opt/edge/bin/edge"]
    assert list(facts["Volumes"]) == ["/var/lib/edge"]


def test_a_demo_runs_as_nobody_in_particular(buildah: Buildah, container: str) -> None:
    assert buildah("run", "--isolation", "chroot", container, "--", "id", "-u").strip() == str(USER)
    told = buildah("run", "--isolation", "chroot", container, "--", "edge", "demo", "--frames", "30", "--port", "0")
    assert "30 frames in " in told
    refused = buildah("run", "--isolation", "chroot", container, "--", "touch", "/opt/edge/x", code=1)
    assert "Permission denied" in refused


def test_as_process_1_with_a_read_only_root_it_is_healthy_and_ends_on_sigterm(
    buildah: Buildah, container: str, facts: dict[str, Any], tmp_path: Path
) -> None:
    root = buildah("mount", container).strip()
    config = tmp_path / "edge.toml"
    config.write_text(CONFIG)
    environment = shlex.join(facts["Env"])
    script = START.format(root=root, user=USER, config=config, environment=environment)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            check = [sys.executable, *facts["Healthcheck"]["Test"][2:]]
            deadline = time.monotonic() + 120
            while subprocess.run(check, capture_output=True, check=False).returncode:
                assert process.poll() is None and time.monotonic() < deadline, "not healthy"
                time.sleep(0.5)
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
            assert "NSpid:" in (status := Path(f"/proc/{child}/status").read_text(encoding="utf-8"))
            assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE), "it is not process 1"
            assert re.search(rf"^Uid:\s+{USER}\s", status, re.MULTILINE)
            os.kill(int(child), signal.SIGTERM)
            said, _ = process.communicate(timeout=40)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, said
    assert "SIGTERM: stopping" in said
    assert "Read-only file system" not in said
