"""Coded video: packets, encoders, SRT; never whole pictures of a camera."""
