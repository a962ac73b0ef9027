"""The units are clean and closed, and the install script does what it says, in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need

FOLDER = Path(__file__).parents[2] / "systemd"
UNITS = ("edge.service", "edge-build@.service")
MAX_EXPOSURE = 2.5


def run(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def install(root: Path, *options: str, code: int = 0) -> str:
    return run("sh", FOLDER / "install.sh", "--root", root, "--no-venv", *options, code=code)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root with the daemon in it; the program is a stand-in, as pip has tests of its own."""
    program = tmp_path / "opt/edge/bin/edge"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "opt/edge/pyvenv.cfg").write_text("home = /usr/bin\n")
    install(tmp_path)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_free_of_mistakes(unit: str, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The program's path is the only thing that is not of the device itself."""
    text = (installed / "etc/systemd/system" / unit).read_text().replace("/opt/edge/", f"{installed}/opt/edge/")
    copy = tmp_path_factory.mktemp("units") / unit.replace("@", "@street")
    copy.write_text(text)
    assert run(need("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", copy) == ""


def test_a_mistake_in_a_unit_would_be_found(tmp_path: Path) -> None:
    text = (FOLDER / "edge.service").read_text().replace("WatchdogSec=30", "WatchdogSecs=30")
    (tmp_path / "edge.service").write_text(text.replace("/opt/edge/bin/edge", "/bin/true"))
    assert "WatchdogSecs" in run(need("systemd-analyze"), "verify", "--man=no", tmp_path / "edge.service")


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_closed(unit: str) -> None:
    lines = run(need("systemd-analyze"), "security", "--offline=yes", "--no-pager", FOLDER / unit).splitlines()
    found = re.search(r"exposure level for \S+: ([\d.]+)", lines[-1])
    assert found
    assert float(found[1]) <= MAX_EXPOSURE


def test_the_unit_lets_cameras_and_gpus_in_and_nothing_else() -> None:
    text = (FOLDER / "edge.service").read_text()
    allowed = re.findall(r"^DeviceAllow=(\S+) rw$", text, re.MULTILINE)
    assert "DevicePolicy=closed" in text
    assert {"char-video4linux", "char-drm", "/dev/nvidia0", "/dev/nvmap"} <= set(allowed)
    assert all(re.match(r"char-(video4linux|media|drm|nvidia)|/dev/(nv|v4l2-nv)", device) for device in allowed)
    assert re.search(r"^CapabilityBoundingSet=$", text, re.MULTILINE)


def test_a_device_that_nobody_visits_is_never_given_up() -> None:
    text = (FOLDER / "edge.service").read_text()
    assert re.search(r"^StartLimitIntervalSec=0$", text, re.MULTILINE)
    assert "StartLimitBurst" not in text
    # the brake of a crash loop outlives a restart, and no disk
    assert re.search(r"^RuntimeDirectory=edge$", text, re.MULTILINE)
    assert re.search(r"^RuntimeDirectoryPreserve=restart$", text, re.MULTILINE)


def test_a_crash_leaves_no_memory_behind() -> None:
    assert re.search(r"^LimitCORE=0$", (FOLDER / "edge.service").read_text(), re.MULTILINE)


def test_install_puts_everything_in_its_place(installed: Path) -> None:
    assert (installed / "etc/edge/edge.toml").read_text() == (FOLDER / "edge.toml").read_text()
    for unit in UNITS:
        assert "/opt/edge/bin/edge" in (installed / "etc/systemd/system" / unit).read_text()
    assert (installed / "etc/edge/secrets").stat().st_mode & 0o777 == 0o700
    assert (installed / "etc/edge/edge.toml").stat().st_mode & 0o777 == 0o640
    assert list((installed / "var/lib/edge/models").glob("*.onnx"))
    assert (installed / "usr/lib/sysusers.d/edge.conf").is_file()


def test_an_upgrade_keeps_configuration_models_and_secrets(installed: Path) -> None:
    kept = {
        installed / "etc/edge/edge.toml": "mine",
        installed / "etc/edge/secrets/token": "secret",
        installed / "var/lib/edge/models/own.onnx": "model",
        next((installed / "var/lib/edge/models").glob("street*.onnx")): "fine-tuned",
    }
    for path, text in kept.items():
        path.write_text(text)
    (installed / "etc/systemd/system/edge.service").write_text("old")
    assert "kept" in install(installed)
    assert {path: path.read_text() for path in kept} == kept
    assert (installed / "etc/systemd/system/edge.service").read_text() != "old"
    assert (installed / "etc/edge/edge.toml.dist").read_text() == (FOLDER / "edge.toml").read_text()


def test_installing_twice_changes_nothing(installed: Path) -> None:
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in installed.rglob("*") if path.is_file()}

    before = state()
    install(installed)
    assert state() == before


def test_uninstall_keeps_what_is_yours_and_purge_does_not(installed: Path) -> None:
    install(installed, "--uninstall")
    left = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert "etc/edge/edge.toml" in left
    assert not [path for path in left if path.startswith(("etc/systemd", "opt", "usr"))]
    install(installed, "--uninstall", "--purge")
    assert not [path for path in installed.rglob("*") if path.is_file()]


def test_a_folder_that_is_no_environment_of_ours_is_not_removed(installed: Path) -> None:
    (installed / "opt/edge/pyvenv.cfg").unlink()
    install(installed, "--uninstall")
    assert (installed / "opt/edge/bin/edge").is_file()


def test_another_prefix_stands_in_the_units(tmp_path: Path) -> None:
    install(tmp_path, "--prefix", "/srv/vision")
    text = (tmp_path / "etc/systemd/system/edge.service").read_text()
    assert "ExecStart=/srv/vision/bin/edge run /etc/edge/edge.toml" in text
    assert "/opt/edge" not in text


@pytest.mark.parametrize(
    ("marker", "extra"), [("etc/nv_tegra_release", "jetson"), ("proc/driver/nvidia/version", "gpu"), ("nothing", "cpu")]
)
def test_the_platform_is_found_out(marker: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / marker).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / marker).write_text("")
    assert f"Edgeloop for {extra}" in install(tmp_path)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [("cpu,events", "cpu,events"), ("events,webrtc", "cpu,events,webrtc"), ("all", "all"), ("rtx", "rtx")],
)
def test_extras_can_be_combined(extra: str, expected: str, tmp_path: Path) -> None:
    assert f"Edgeloop for {expected} below" in install(tmp_path, "--extra", extra)


def test_edge_service_runs_the_script_that_lies_in_the_package(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from edge.cli import main; main()", "service"]
    said = run(*command, "install", "--root", tmp_path, "--no-venv", "--extra", "events")
    assert "Edgeloop for cpu,events" in said
    assert (tmp_path / "etc/edge/edge.toml").is_file()
    assert list((tmp_path / "var/lib/edge/models").glob("*.onnx"))
    run(*command, "uninstall", "--purge", "--root", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "expected install or uninstall" in run(*command, "start", code=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fly",), "unknown option --fly"),
        (("--prefix", "opt"), "expected a folder from the root on"),
        (("--extra", "tpu"), "expected cpu, gpu, rtx, jetson or openvino"),
        (("--purge",), "--purge goes with --uninstall"),
    ],
)
def test_wrong_options_change_nothing(options: tuple[str, ...], words: str, tmp_path: Path) -> None:
    assert words in install(tmp_path, *options, code=1)
    assert not list(tmp_path.iterdir())


def test_a_python_that_the_daemon_cannot_reach_is_not_taken(tmp_path: Path) -> None:
    """Root's own Python (pyenv, uv) lies in a folder that the service's user may not enter."""
    text = (FOLDER / "install.sh").read_text()
    function = text[text.index("is_shared() {") : text.index("install_program() {")]
    system, own = Path("/usr/bin/python3"), tmp_path / "private" / "python3"
    own.parent.mkdir(mode=0o700)
    shutil.copy(system.resolve(), own)
    for python, code in ((system, 0), (own, 1)):
        done = subprocess.run(["sh", "-c", f'{function}\nis_shared "{python}"'], capture_output=True, check=False)
        assert done.returncode == code, done.stderr


def settle(folder: Path, *, starts: bool) -> tuple[str, list[str]]:
    """An installation's last part with stand-ins for the commands of systemd: what it prints, what it asks of them."""
    text = (FOLDER / "install.sh").read_text()
    function = text[text.index("settle() {") : text.index("uninstall() {")]
    log = folder / "asked"
    for name in ("systemctl", "journalctl", "systemd-sysusers", "systemd-tmpfiles", "chown", "edge"):
        program = folder / name
        code = 1 if name == "systemctl" and not starts else 0
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n[ "$1" != restart ] || exit {code}\n')
        program.chmod(0o755)
    (folder / "journalctl").write_text("#!/bin/sh\necho door: no such camera\n")
    script = f"""set -eu
live=yes start=yes state={folder} config={folder} prefix={folder}
say() {{ echo "$*"; }}; fail() {{ echo "$*"; exit 1; }}; has_systemd() {{ true; }}
{function}
settle 2>&1"""
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == (0 if starts else 1), done.stdout + done.stderr
    return done.stdout, [line for line in log.read_text().splitlines() if line.startswith(("systemctl", "edge"))]


def test_the_service_itself_tries_the_configuration(tmp_path: Path) -> None:
    """Not root, who has neither the service's secrets nor its rights, and should load no model of its user."""
    _, asked = settle(tmp_path, starts=True)
    assert asked == ["systemctl daemon-reload", "systemctl restart edge.service", "systemctl enable edge.service"]


def test_a_service_that_does_not_start_is_said_with_its_last_words(tmp_path: Path) -> None:
    said, asked = settle(tmp_path, starts=False)
    assert "door: no such camera" in said
    assert "systemctl enable --now edge" in said
    assert "systemctl enable edge.service" not in asked


@pytest.mark.parametrize("call", ["sched_setaffinity"])
def test_what_the_program_asks_of_the_kernel_is_allowed(call: str) -> None:
    """Keeping an engine to some cores stands in one of the groups that the unit denies."""
    text = (FOLDER / "edge.service").read_text()
    filters = re.findall(r"^SystemCallFilter=(.*)$", text, re.MULTILINE)
    denied = [place for place, words in enumerate(filters) if words.startswith("~")]
    groups = [group for place in denied for group in filters[place].lstrip("~").split()]
    listed = "".join(run(need("systemd-analyze"), "--no-pager", "syscall-filter", group) for group in groups)
    assert re.search(rf"^\s+{call}$", listed, re.MULTILINE)
    assert call in filters[-1].split() and len(filters) - 1 > max(denied)
    # WebRTC asks netlink for the machine's addresses
    assert re.search(r"^RestrictAddressFamilies=.*AF_NETLINK", text, re.MULTILINE)
