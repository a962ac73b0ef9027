"""install.sh follows no link that the service's user could have left, and lets in the devices that a machine has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from needs import need

FOLDER = Path(__file__).parents[2] / "systemd"
RECORDED = Path(__file__).parents[1] / "data/devices"
UNITS = ("edge.service", "edge-build@.service")


def install(root: Path, *options: str, code: int = 0) -> str:
    command: list[str | Path] = ["sh", FOLDER / "install.sh", "--root", root, "--no-venv", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "etc-of-the-machine"
    path.mkdir()
    (path / "shadow").write_text("root's own")
    return path


@pytest.mark.parametrize("name", ["street-nano.onnx", "street-nano.json"])
@pytest.mark.parametrize("target", ["shadow", "not-there-yet"])
def test_a_link_in_place_of_a_model_is_not_written_through(
    name: str, target: str, victim: Path, tmp_path: Path
) -> None:
    models = tmp_path / "root/var/lib/edge/models"
    models.mkdir(parents=True)
    (models / name).symlink_to(victim / target)
    install(tmp_path / "root")
    assert (victim / "shadow").read_text() == "root's own"
    assert [path.name for path in victim.iterdir()] == ["shadow"]
    assert (models / "real-street.onnx").is_file()


@pytest.mark.parametrize("folder", ["models", "timing", ""])
def test_a_link_in_place_of_a_folder_is_refused(folder: str, victim: Path, tmp_path: Path) -> None:
    place = tmp_path / "root/var/lib/edge" / folder
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(victim, target_is_directory=True)
    assert "is a link; put a folder there" in install(tmp_path / "root", code=1)
    assert [path.name for path in victim.iterdir()] == ["shadow"]


def test_root_writes_nothing_into_the_folders_of_the_service_itself() -> None:
    """On a running machine: by the service's user, and only where nothing is."""
    text = (FOLDER / "install.sh").read_text()
    assert "runuser -u edge" in text
    assert not re.search(r"^\s*(cp|install|chown -R|mv)\b.*\$state", text, re.MULTILINE)


def machine(root: Path, name: str) -> list[str]:
    """A folder that looks like a recorded machine; the devices are plain files."""
    nodes = [line for line in (RECORDED / f"{name}.txt").read_text().splitlines() if line.startswith("/")]
    for node in nodes:
        path = root / node.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o755)
    return [node for node in nodes if node.startswith("/dev/")]


def let_in(root: Path, unit: str = "edge.service") -> tuple[str, set[str]]:
    """The drop-in, and every device that unit and drop-in let in."""
    folder = root / "etc/systemd/system"
    dropin = folder / f"{unit}.d/10-devices.conf"
    text = dropin.read_text() if dropin.exists() else ""
    return text, set(re.findall(r"^DeviceAllow=(\S+) rw$", (folder / unit).read_text() + text, re.MULTILINE))


# devices that are let in by their kind, see edge.service
BY_KIND = re.compile(r"/dev/(dri/|video\d)")


@pytest.mark.parametrize("name", ["jetpack6", "headless-nvidia", "intel-npu"])
def test_every_device_of_a_recorded_machine_is_let_in_and_said(name: str, tmp_path: Path) -> None:
    nodes = machine(tmp_path, name)
    said = install(tmp_path)
    for unit in UNITS:
        text, allowed = let_in(tmp_path, unit)
        assert [node for node in nodes if node not in allowed and not BY_KIND.match(node)] == []
        assert all(line in said for line in text.splitlines() if line.startswith("DeviceAllow"))
        assert len(re.findall(r"^DeviceAllow=(\S+)", text, re.MULTILINE)) == len(set(text.splitlines())) - len(
            [line for line in text.splitlines() if not line.startswith("DeviceAllow")]
        )


def test_csi_cameras_find_the_socket_of_their_daemon(tmp_path: Path) -> None:
    machine(tmp_path, "jetpack6")
    install(tmp_path)
    text, _ = let_in(tmp_path)
    assert "BindReadOnlyPaths=-/tmp/argus_socket" in text and "After=nvargus-daemon.service" in text
    assert "argus" not in let_in(tmp_path, "edge-build@.service")[0]


def test_without_a_screen_cudas_module_is_loaded_before_the_start(tmp_path: Path) -> None:
    machine(tmp_path, "headless-nvidia")
    install(tmp_path)
    assert "ExecStartPre=+-/usr/bin/nvidia-modprobe -c 0 -u" in let_in(tmp_path)[0]


def test_a_machine_without_such_devices_gets_no_file_and_an_old_one_goes(tmp_path: Path) -> None:
    machine(tmp_path, "jetpack6")
    install(tmp_path)
    for path in (tmp_path / "dev", tmp_path / "tmp"):
        shutil.rmtree(path)
    machine(tmp_path, "plain")
    install(tmp_path)
    assert not (tmp_path / "etc/systemd/system/edge.service.d").exists()
    machine(tmp_path, "jetpack6")
    install(tmp_path)
    install(tmp_path, "--uninstall")
    assert not list((tmp_path / "etc/systemd/system").iterdir())


def test_a_device_with_an_odd_name_writes_no_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvhost-x\nUser=root").write_text("")
    (tmp_path / "dev" / "nvhost-y rw %h").write_text("")
    install(tmp_path)
    assert let_in(tmp_path)[0] == ""


@pytest.mark.parametrize("name", ["jetpack6", "headless-nvidia", "intel-npu"])
def test_unit_and_drop_in_together_are_free_of_mistakes(name: str, tmp_path: Path) -> None:
    machine(tmp_path, name)
    install(tmp_path)
    unit = tmp_path / "checked" / "edge.service"
    unit.parent.mkdir()
    text = (tmp_path / "etc/systemd/system/edge.service").read_text() + let_in(tmp_path)[0]
    unit.write_text(text.replace("/opt/edge/bin/edge", "/bin/true").replace("/usr/bin/nvidia-modprobe", "/bin/true"))
    command = [need("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
