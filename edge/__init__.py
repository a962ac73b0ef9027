"""Edgeloop's runtime: cameras in; boxes, tracks, events and pictures out. Runs without torch."""
