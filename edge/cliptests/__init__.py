"""Clips as tests: what was seen once must be seen again before anything new takes over."""
