"""The unit under a real systemd as process 1: in namespaces of its own, over a copy-on-write view of this machine.

Needs root, overlayfs and the package ``systemd``. Nothing of the machine is changed: what is installed there is gone
with the folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
CONTROLLERS = ("pids", "memory", "cpu", "cpuacct", "devices", "freezer", "blkio")
MOUNTS = """
mount --make-rprivate /
mount -t overlay -o lowerdir=/,upperdir={work}/up,workdir={work}/work overlay {root}
mount -t proc proc {root}/proc
mount -t sysfs sysfs {root}/sys
mount -t tmpfs tmpfs {root}/run
mount -t tmpfs tmpfs {root}/tmp
mount --rbind /dev {root}/dev
mkdir -p {root}/sys/fs/cgroup
mount -t tmpfs tmpfs {root}/sys/fs/cgroup
mkdir {root}/sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup {root}/sys/fs/cgroup/systemd
for name in {controllers}; do
  mkdir {root}/sys/fs/cgroup/$name; mount -t cgroup -o $name cgroup {root}/sys/fs/cgroup/$name
done
mkdir -p {root}/opt/project
mount --bind {project} {root}/opt/project
export container=docker
exec chroot {root} {systemd} --system --unit=basic.target systemd.unified_cgroup_hierarchy=0
"""
INSTALL = """
set -e
cd /
/usr/bin/python3 -m venv --without-pip /opt/edge
packages=$(/opt/edge/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo /opt/project > $packages/a.pth; echo /opt/packages > $packages/b.pth
printf '#!/opt/edge/bin/python3\\nfrom edge.cli import main\\nmain()\\n' > /opt/edge/bin/edge
chmod +x /opt/edge/bin/edge
cp /opt/project/systemd/edge.service /etc/systemd/system/
cp /opt/project/systemd/edge.sysusers.conf /usr/lib/sysusers.d/edge.conf
systemd-sysusers
mkdir -p /etc/edge /var/lib/edge/models
cp /opt/project/edge/models/street-nano-int8.* /var/lib/edge/models/
sed -e 's/^enabled = false/enabled = true/' -e 's/^# port = 8080/port = 18480/' /opt/project/systemd/edge.toml \
  > /etc/edge/edge.toml
chown -R edge:edge /var/lib/edge; chown -R root:edge /etc/edge; chmod 750 /etc/edge
systemctl daemon-reload
systemctl start edge
"""
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0 or not SYSTEMD.exists(), reason="needs root and the package systemd"),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="Debian's Python must fit the packages of this one"),
]


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Runs a script under a systemd that has booted."""
    work, root = tmp_path / "overlay", tmp_path / "root"
    packages = Path(sys.prefix) / "lib" / "python3.11" / "site-packages"
    for folder in (work / "up" / "opt", work / "work", root):
        folder.mkdir(parents=True)
    shutil.copytree(packages, work / "up" / "opt" / "packages", symlinks=True)
    facts = {"work": work, "root": root, "systemd": SYSTEMD, "project": ROOT, "controllers": " ".join(CONTROLLERS)}
    boot = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount",
        "--uts",
        "--ipc",
        "sh",
        "-ec",
        MOUNTS.format(**facts),
    ]
    with subprocess.Popen(boot, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        first = _child_of(process.pid)

        def run(script: str) -> str:
            command = ["nsenter", "-t", str(first), "-m", "-p", "-u", "-i", "-r", "sh", "-s"]
            done = subprocess.run(
                command, input=script, capture_output=True, text=True, timeout=120, check=False, cwd="/"
            )
            return done.stdout + done.stderr

        _wait_for(lambda: "running" in run("systemctl is-system-running"), 60)
        yield run
        process.kill()


def _child_of(parent: int) -> int:
    found: list[str] = []

    def is_there() -> bool:
        found[:] = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()
        return bool(found)

    _wait_for(is_there, 10)
    return int(found[0])


def _wait_for(condition: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def shown(text: str) -> dict[str, str]:
    """What ``systemctl show`` printed."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_the_unit_starts_reloads_restarts_after_kills_and_hangs_and_stops_cleanly(inside: Callable[[str], str]) -> None:
    facts = "systemctl show -p SubState,NRestarts,StatusText,Result,ExecMainStatus edge"
    said = inside(INSTALL)
    assert shown(inside(facts))["SubState"] == "running", said
    assert "ok" in inside("curl -s http://127.0.0.1:18480/healthz")
    inside("systemctl reload edge")
    assert shown(inside(facts))["SubState"] == "running"
    inside("kill -9 $(systemctl show -p MainPID --value edge)")
    _wait_for(lambda: shown(inside(facts))["NRestarts"] == "1" and shown(inside(facts))["StatusText"] == "running", 30)
    # a process that stands still feeds nothing: the watchdog ends it after 30 s
    inside("kill -STOP $(systemctl show -p MainPID --value edge)")
    _wait_for(lambda: shown(inside(facts))["NRestarts"] == "2" and shown(inside(facts))["StatusText"] == "running", 90)
    inside("systemctl stop edge")
    ended = shown(inside(facts))
    assert (ended["SubState"], ended["Result"], ended["ExecMainStatus"]) == ("dead", "success", "0")
