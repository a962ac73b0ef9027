"""Threads, the queue between two of them, waiting after failures, and ending in time."""
