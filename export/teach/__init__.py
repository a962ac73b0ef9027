"""Labels for pictures from a stronger model."""
