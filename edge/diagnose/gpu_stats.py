"""Temperature, power, load and throttling: from the kernel's files (Jetson and others), or NVML where it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")
log = logging.getLogger(__name__)
# zones that say nothing about the processor: radios, and a sensor that Jetsons fix at one value
OTHER_ZONES = ("iwlwifi", "pmic", "nvme", "wifi")
# the GPU's load in thousandths (L4T: Xavier and Orin have it at different places)
LOAD_FILES = (
    "sys/devices/gpu.0/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/17000000.gpu/load",
    "sys/devices/platform/bus@0/17000000.gpu/load",
)
# of the input of the whole module, as the boards name it
INPUT_RAILS = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN", "VIN")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the device says of itself; None where it says nothing.

    Attributes:
        temperature_c: of the hottest part.
        power_w: of the module or of the card.
        load: of the GPU, 0 to 1.
        memory_used_mb: of the GPU.
        is_throttled: whether it runs slower than it could, because of heat or power.
    """

    temperature_c: float | None = None
    power_w: float | None = None
    load: float | None = None
    memory_used_mb: float | None = None
    is_throttled: bool | None = None

    @property
    def is_empty(self) -> bool:
        return all(value is None for value in asdict(self).values())


def gpu_facts(root: Path = Path("/")) -> dict[str, Any]:
    """The facts that are known, as JSON values; empty where there are none."""
    return {key: value for key, value in asdict(read_device(root)).items() if value is not None}


def read_device(root: Path = Path("/")) -> DeviceFacts:
    """Ask NVML where a card's driver is loaded, else the kernel's files below ``root``."""
    if (root / "proc/driver/nvidia/version").is_file():
        facts = _nvml_facts()
        if not facts.is_empty:
            return facts
    return sysfs_facts(root)


def sysfs_facts(root: Path) -> DeviceFacts:
    """What the kernel's files say."""
    load = next((value for name in LOAD_FILES if (value := _number(root / name)) is not None), None)
    return DeviceFacts(
        temperature_c=_hottest(root / "sys/class/thermal"),
        power_w=_input_power(root / "sys/class/hwmon"),
        load=None if load is None else load / 1000,
        is_throttled=_is_throttled(root / "sys/class/thermal"),
    )


def _hottest(folder: Path) -> float | None:
    found = []
    for zone in sorted(folder.glob("thermal_zone*")):
        milli = _number(zone / "temp")
        is_other = any(word in _text(zone / "type").lower() for word in OTHER_ZONES)
        # a sensor without power reads far below zero
        if milli is not None and not is_other and milli > -40_000:
            found.append(milli / 1000)
    return max(found, default=None)


def _input_power(folder: Path) -> float | None:
    """Watts of the INA3221 rail that feeds the module: millivolts times milliamperes."""
    for monitor in sorted(folder.glob("hwmon*")):
        if _text(monitor / "name") != "ina3221":
            continue
        for label in sorted(monitor.glob("in*_label")):
            if _text(label) in INPUT_RAILS:
                channel = label.name.removeprefix("in").removesuffix("_label")
                volts, amperes = _number(monitor / f"in{channel}_input"), _number(monitor / f"curr{channel}_input")
                if volts is not None and amperes is not None:
                    return round(volts * amperes / 1e6, 3)
    return None


def _is_throttled(folder: Path) -> bool | None:
    states = [
        _number(device / "cur_state")
        for device in folder.glob("cooling_device*")
        if "throttle" in _text(device / "type")
    ]
    known = [state for state in states if state is not None]
    return any(state > 0 for state in known) if known else None


def _nvml_facts() -> DeviceFacts:
    nvml = _nvml()
    if nvml is None:
        return DeviceFacts()
    try:
        card = nvml.nvmlDeviceGetHandleByIndex(0)
    except nvml.NVMLError as error:
        log.debug("NVML: %s", error)
        return DeviceFacts()
    # reasons that mean slower than possible: power, heat, brakes; not idling, not what an application asked for
    bad = (
        nvml.nvmlClocksThrottleReasonSwPowerCap
        | nvml.nvmlClocksThrottleReasonHwSlowdown
        | nvml.nvmlClocksThrottleReasonSwThermalSlowdown
        | nvml.nvmlClocksThrottleReasonHwThermalSlowdown
        | nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
    )

    def ask(query: Callable[[], Value]) -> Value | None:
        # some cards have no power sensor, and parts of a card (MIG) no load: the other facts are still true
        try:
            return query()
        except nvml.NVMLError as error:
            log.debug("NVML: %s", error)
            return None

    return DeviceFacts(
        temperature_c=ask(lambda: float(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU))),
        power_w=ask(lambda: round(nvml.nvmlDeviceGetPowerUsage(card) / 1e3, 1)),
        load=ask(lambda: nvml.nvmlDeviceGetUtilizationRates(card).gpu / 100),
        memory_used_mb=ask(lambda: round(nvml.nvmlDeviceGetMemoryInfo(card).used / 2**20, 1)),
        is_throttled=ask(lambda: bool(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card) & bad)),
    )


@lru_cache(maxsize=1)
def _nvml() -> Any:
    """The library, ready; None where it is not installed or finds no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError as error:
        log.info("NVML is not usable: %s", error)
        return None
    return pynvml


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
