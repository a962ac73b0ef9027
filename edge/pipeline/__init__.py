"""The way of a frame: capture, newest-frame hand-over, batch, analysis, output."""
