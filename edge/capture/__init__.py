"""From a camera to frames: capture loops, child processes, the health of pictures."""
