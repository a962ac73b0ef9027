"""The nodes of this machine's cameras: by number, and a Jetson's CSI sensors by theirs."""

from __future__ import annotations

from pathlib import Path

from edge.commands.plugged_in import candidates, plugged_in


def test_usb_cameras_go_by_their_node_and_csi_sensors_by_their_number(tmp_path: Path) -> None:
    devices, names = tmp_path / "dev", tmp_path / "sys"
    devices.mkdir()
    for number, name in (
        (0, "vi-output, imx219 9-0010"),
        (10, "USB Camera"),
        (2, "vi-output, imx219 10-0010"),
        (3, None),
    ):
        (devices / f"video{number}").touch()
        if name is not None:
            (names / f"video{number}").mkdir(parents=True)
            (names / f"video{number}" / "name").write_text(name + "\n")
    assert candidates(devices, names) == [
        ("csi://0", "vi-output, imx219 9-0010"),
        ("csi://1", "vi-output, imx219 10-0010"),
        ("3", ""),
        ("10", "USB Camera"),
    ]


def test_without_a_node_there_is_no_camera(tmp_path: Path) -> None:
    assert plugged_in(tmp_path / "dev", tmp_path / "sys") == []
