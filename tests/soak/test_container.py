"""Images for CPUs and of the add-on, built and run: not as root, as process 1; they end when they are told to."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from minimal_root import make_base, pip_access
from mosquitto import Broker, Listener
from needs import need
from supervisor import TOKEN, supervisor
from waiting import wait_until

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

# /data and the name of the Supervisor are what Home Assistant gives
ADDON_START = """
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount --rbind /dev {root}/dev
mkdir -p {root}/data
mount --bind {data} {root}/data
echo "127.0.0.1 supervisor" > {root}/etc/hosts
exec chroot {root} /usr/bin/env -i {environment} {command}
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("containers")


@pytest.fixture(scope="module")
def buildah(folder: Path) -> Iterator[Buildah]:
    """With a base, ``localhost/base``."""
    built = Buildah(folder)
    make_base(folder / "base.tar")
    (folder / "Base").write_text("FROM scratch\nADD base.tar /\n")
    built("bud", "--isolation", "chroot", "-f", folder / "Base", "-t", "localhost/base", folder)
    yield built
    built("rm", "--all")


@pytest.fixture(scope="module")
def build(buildah: Buildah, folder: Path) -> Callable[..., str]:
    """Makes an image, in which pip gets packages as here, and a container of it; the name of the container."""
    access = pip_access(folder)
    volumes = {str(access.config): "/etc/pip.conf", **access.mounts}
    mounts = [text for here, there in volumes.items() for text in ("--volume", f"{here}:{there}:ro")]

    def made(image: str, *arguments: str | Path) -> str:
        buildah("bud", "--isolation", "chroot", "--format", "docker", *mounts, "-t", image, *arguments)
        return buildah("from", image).strip()

    return made


@pytest.fixture(scope="module")
def container(build: Callable[..., str]) -> str:
    file = ROOT / "container" / "Containerfile"
    return build("localhost/edgeloop", "--build-arg", "BASE=localhost/base", "-f", file, ROOT)


@pytest.fixture(scope="module")
def addon(build: Callable[..., str], folder: Path) -> str:
    """As the Supervisor builds it: of its folder alone, in which the source archive lies."""
    place = shutil.copytree(ROOT / "container" / "home-assistant" / "edgeloop", folder / "addon")
    archive = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(place), str(ROOT)]
    subprocess.run(archive, check=True, capture_output=True)
    return build("localhost/addon", "--build-arg", "BUILD_FROM=localhost/base", place)


@pytest.fixture(scope="module")
def facts(buildah: Buildah, container: str) -> dict[str, Any]:
    return facts_of(buildah, "localhost/edgeloop")


def facts_of(buildah: Buildah, image: str) -> dict[str, Any]:
    """How the image says that it is run."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
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


def test_the_addon_becomes_a_user_and_tells_home_assistant_of_its_camera(
    buildah: Buildah, addon: str, tmp_path: Path
) -> None:
    if not is_free(80) or not is_free(8080):
        pytest.skip("the add-on listens on 8080, its Supervisor on 80: something else does here")
    root, facts = buildah("mount", addon).strip(), facts_of(buildah, "localhost/addon")
    data = tmp_path / "data"
    data.mkdir()
    stream = {"name": "door", "source": "synthetic://street?seed=7&size=320x180&fps=10&live=1"}
    options = {"token": "a-token-of-sixteen-characters", "switches": True, "streams": [stream]}
    (data / "options.json").write_text(json.dumps(options))
    (data / "options.json").chmod(0o600)
    environment = shlex.join([*facts["Env"], f"SUPERVISOR_TOKEN={TOKEN}"])
    script = ADDON_START.format(root=root, data=data, environment=environment, command=shlex.join(facts["Cmd"]))
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script]
    broker = Broker(tmp_path)
    broker.start()
    listener = Listener(broker)
    with (
        supervisor({"host": "127.0.0.1", "port": broker.port, "ssl": False}, 80),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        try:
            check = [sys.executable, *facts["Healthcheck"]["Test"][2:]]
            wait_until(lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0, 120)
            listener.wait_for(lambda got: any(topic == "edge/door/state" for topic, _, _ in got), 60)
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
            status = Path(f"/proc/{child}/status").read_text(encoding="utf-8")
            assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE), "it is not process 1"
            assert re.search(rf"^Uid:\s+{USER}\s", status, re.MULTILINE)
            os.kill(int(child), signal.SIGTERM)
            said, _ = process.communicate(timeout=40)
        except BaseException:
            process.kill()
            raise
        finally:
            listener.close()
            broker.end()
    assert process.returncode == 0, said


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
