"""A classifier that looks at crops of tracked objects, off the hot path."""
