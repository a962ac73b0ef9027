"""The toolchain: train, evaluate, quantize, convert, build engines, verify."""

import edge  # noqa: F401 - switches the telemetry of libraries off
