"""Many video files at once: split at key frames, detected in parallel, tracked in order, written as tables."""
