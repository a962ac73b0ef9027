"""What tracks mean: zones, lines, dwell, speed, events."""
