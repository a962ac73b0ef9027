"""Which H.264 encoders this process may use: ``encoder`` in edge.toml. PyAV's package brings libx264, under the GPL."""

from __future__ import annotations

from collections.abc import Mapping

HARDWARE = ("h264_nvenc", "h264_v4l2m2m")
SOFTWARE = ("libx264", "libopenh264")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "auto": (*SOFTWARE, *HARDWARE),
    "x264": ("libx264",),
    "openh264": ("libopenh264",),
    "hardware": HARDWARE,
}
_allowed = CHOICES["auto"]


def allow_encoders(choice: str) -> None:
    """From now on only these: a key of ``CHOICES``."""
    global _allowed
    _allowed = CHOICES[choice]


def allowed_encoders() -> tuple[str, ...]:
    """FFmpeg's names."""
    return _allowed
