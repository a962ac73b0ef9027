"""The device's facts from a made-up tree of files, and a governor that steps down at once and up slowly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.config.daemon import GovernorSettings
from edge.config.load import parse_config
from edge.daemon.governor import CALM_LOOKS, SHARES, Governor
from edge.diagnose.gpu_stats import DeviceFacts, gpu_facts, sysfs_facts
from edge.errors import ConfigError
from edge.pipeline.stream import Stream
from edge.types import Frame


def put(root: Path, name: str, text: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """A Jetson Orin's files: zones, an INA3221 with three rails, the GPU's load, throttle alerts."""
    zones = {
        "cpu-thermal": 51_500,
        "gpu-thermal": 48_000,
        "tj-thermal": 52_250,
        "PMIC-Die": 100_000,
        "soc2-thermal": -256_000,
    }
    for number, (name, milli) in enumerate(zones.items()):
        put(tmp_path, f"sys/class/thermal/thermal_zone{number}/type", name)
        put(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", milli)
    put(tmp_path, "sys/class/hwmon/hwmon0/name", "tmp451")
    put(tmp_path, "sys/class/hwmon/hwmon3/name", "ina3221")
    for number, (rail, millivolts, milliamperes) in enumerate(
        [("VDD_IN", 5040, 1500), ("VDD_CPU_GPU_CV", 5030, 700)], 1
    ):
        put(tmp_path, f"sys/class/hwmon/hwmon3/in{number}_label", rail)
        put(tmp_path, f"sys/class/hwmon/hwmon3/in{number}_input", millivolts)
        put(tmp_path, f"sys/class/hwmon/hwmon3/curr{number}_input", milliamperes)
    put(tmp_path, "sys/devices/platform/17000000.gpu/load", 734)
    for number, name in enumerate(("pwm-fan", "cpu-throttle-alert", "gpu-throttle-alert")):
        put(tmp_path, f"sys/class/thermal/cooling_device{number}/type", name)
        put(tmp_path, f"sys/class/thermal/cooling_device{number}/cur_state", 3 if name == "pwm-fan" else 0)
    return tmp_path


def test_a_jetsons_files_are_read(orin: Path) -> None:
    facts = sysfs_facts(orin)
    assert facts == DeviceFacts(temperature_c=52.25, power_w=7.56, load=0.734, is_throttled=False)
    put(orin, "sys/class/thermal/cooling_device2/cur_state", 1)
    assert sysfs_facts(orin).is_throttled is True


def test_a_machine_that_says_nothing_gives_nothing(tmp_path: Path) -> None:
    assert gpu_facts(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "no number", "N/A"])
def test_files_that_hold_no_number_are_left_out(text: str, orin: Path) -> None:
    for number in range(5):
        put(orin, f"sys/class/thermal/thermal_zone{number}/temp", text)
    assert sysfs_facts(orin).temperature_c is None


class Device:
    """A governed device whose heat is set by the test."""

    def __init__(self, **settings: float) -> None:
        raw = {
            "model": {"path": "m"},
            "streams": [{"name": "a", "source": "rtsp://x/1"}, {"name": "b", "source": "b.mp4"}],
        }
        config = parse_config(raw, where="x")
        manifest: Any = SimpleNamespace(classes=())
        analysis: Any = SimpleNamespace()
        self.streams = {stream.name: Stream(stream, "m", manifest, analysis) for stream in config.streams}
        self.facts = DeviceFacts(temperature_c=50.0)
        self.governor = Governor(GovernorSettings(enabled=True, **settings), lambda: self.streams, lambda: self.facts)

    def look(
        self, temperature_c: float, times: int = 1, power_w: float | None = None, is_throttled: bool = False
    ) -> float:
        self.facts = DeviceFacts(temperature_c, power_w, is_throttled=is_throttled)
        for _ in range(times):
            self.governor.look()
        return self.governor.share


def test_it_steps_down_at_once_and_up_after_a_while() -> None:
    device = Device(hot_c=85, cool_c=78)
    assert device.look(70) == 1.0
    assert device.look(86) == SHARES[1]
    assert device.look(90) == SHARES[2]
    assert device.look(75, CALM_LOOKS - 1) == SHARES[2]
    assert device.look(75) == SHARES[1]
    assert device.look(75, CALM_LOOKS) == 1.0


def test_it_does_not_swing_between_the_limits() -> None:
    device = Device(hot_c=85, cool_c=78)
    device.look(86)
    assert {device.look(temperature) for temperature in (84, 79, 84.9, 78.1) * 10} == {SHARES[1]}


def test_it_stops_at_the_lowest_level() -> None:
    device = Device()
    assert device.look(120, 50) == SHARES[-1]


@pytest.mark.parametrize(
    ("power_w", "is_throttled", "share"), [(14.0, False, 1.0), (16.0, False, SHARES[1]), (5.0, True, SHARES[1])]
)
def test_power_and_throttling_count_too(power_w: float, is_throttled: bool, share: float) -> None:
    assert Device(max_power_w=15).look(40, 1, power_w, is_throttled) == share


def test_only_live_streams_are_held_back_and_never_below_the_least_rate() -> None:
    device = Device(min_fps=8)
    device.look(120, 50)
    assert device.streams["a"].held_fps == 8
    assert device.streams["b"].held_fps is None
    device.look(20, 50)
    assert device.streams["a"].held_fps is None


@pytest.mark.parametrize(("held_fps", "expected"), [(None, 300), (15.0, 150), (10.0, 100), (7.0, 70)])
def test_a_held_stream_keeps_its_rate(held_fps: float | None, expected: int) -> None:
    stream = Device().streams["a"]
    stream.held_fps = held_fps
    image = np.zeros((2, 2, 3), np.uint8)
    rng = np.random.default_rng(1)
    times = [round((number + rng.uniform(-0.2, 0.2)) * 1e9 / 30) + 10**9 for number in range(300)]
    passed = sum(not stream.is_held_back(Frame("a", 0, number, time, None, image)) for number, time in enumerate(times))
    assert passed == pytest.approx(expected, rel=0.06)


def test_limits_without_room_between_them_are_refused() -> None:
    raw = {"model": {"path": "m"}, "streams": [{"name": "a", "source": "0"}], "governor": {"hot_c": 70}}
    with pytest.raises(ConfigError, match="cool_c = 78 is expected to lie below hot_c = 70"):
        parse_config(raw, where="x")


class _Nvml:
    """A card without a power sensor, as NVML reports it: a fault that only such a card has."""

    NVMLError = RuntimeError
    NVML_TEMPERATURE_GPU = 0
    nvmlClocksThrottleReasonSwPowerCap = 4  # noqa: N815
    nvmlClocksThrottleReasonHwSlowdown = 8  # noqa: N815
    nvmlClocksThrottleReasonSwThermalSlowdown = 32  # noqa: N815
    nvmlClocksThrottleReasonHwThermalSlowdown = 64  # noqa: N815
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 128  # noqa: N815

    def __getattr__(self, name: str) -> Any:
        if name == "nvmlDeviceGetPowerUsage":
            return self._refused
        values = {
            "nvmlDeviceGetHandleByIndex": 0,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=512 * 2**20),
            "nvmlDeviceGetCurrentClocksThrottleReasons": 33,
        }
        return lambda *_: values[name]

    def _refused(self, *_: object) -> None:
        raise RuntimeError("Not Supported")


def test_what_a_card_does_not_tell_costs_only_that_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "proc/driver/nvidia/version"
    driver.parent.mkdir(parents=True)
    driver.touch()
    monkeypatch.setattr("edge.diagnose.gpu_stats._nvml", _Nvml)
    assert gpu_facts(tmp_path) == {"temperature_c": 61.0, "load": 0.37, "memory_used_mb": 512.0, "is_throttled": True}
