"""INT8 calibration: choose frames, measure ranges, judge sensitivity."""

import edge  # noqa: F401 - switches the telemetry of libraries off
