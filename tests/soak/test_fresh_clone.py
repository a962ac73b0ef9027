"""README's two commands, in a minimal Debian with Python, make and git, by a user who is not root."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from minimal_root import make_base, pip_access
from needs import need

ROOT = Path(__file__).parents[2]
PACKAGES = ("python3", "python3-venv", "make", "git")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.real_server,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(os.geteuid() != 0, reason="a root of its own is made as root"),
]
# the shell stays: as process 1 it takes the ends of those that nobody waits for, as an init does
ENTER = """
mount -t proc proc {root}/proc
mount --rbind /dev {root}/dev
{mounts}
chroot {root} {command} || exit $?
"""


class Machine:
    """A minimal Debian in a folder. What is mounted in it is so for one command only."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "root"
        self._root.mkdir()
        make_base(folder / "base.tar")
        subprocess.run(["tar", "-C", str(self._root), "-xf", str(folder / "base.tar")], check=True)
        access = pip_access(folder)
        self._mounts = []
        for here, there in access.mounts.items():
            (self._root / there.lstrip("/")).mkdir(parents=True, exist_ok=True)
            self._mounts.append(f"mount --bind -o ro {here} {self._root}{there}")
        (self._root / "etc/pip.conf").write_text(access.config.read_text())
        # which an installer writes
        (self._root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        (self._root / "etc/resolv.conf").write_text(Path("/etc/resolv.conf").read_text(encoding="utf-8"))
        self.run("apt-get update -qq")
        self.run(
            f"env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {' '.join(PACKAGES)}"
        )
        self.run("useradd --create-home tester")
        clone = self._root / "home/tester/edgeloop"
        subprocess.run([need("git"), "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
        self.run("chown -R tester:tester /home/tester")

    def run(self, command: str, code: int = 0) -> str:
        script = ENTER.format(root=self._root, mounts="\n".join(self._mounts), command=command)
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        arguments = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script]
        done = subprocess.run(arguments, capture_output=True, text=True, env=clean, check=False)
        assert done.returncode == code, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout + done.stderr

    def as_user(self, command: str) -> str:
        return self.run(f"su - tester -c 'cd edgeloop && {command}'")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def test_make_demo_ends_with_a_picture_of_what_it_did(machine: Machine) -> None:
    told = machine.as_user('make demo ARGS="--frames 60 --port 0"')
    assert "60 frames in " in told
    assert "tracked objects (" in told


def test_make_test_passes_and_one_sentence_says_what_was_left_out(machine: Machine) -> None:
    told = machine.as_user("make test")
    assert re.search(r"^\d+ tests were skipped: .* \(make servers brings them\)", told, re.MULTILINE)
    assert re.search(r"^(=+ )?\d+ passed", told, re.MULTILINE), told[-3000:]
