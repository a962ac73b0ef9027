"""INT8 calibration: choose frames, measure ranges, judge sensitivity."""
