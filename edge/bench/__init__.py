"""Measuring: the whole loop against the bare engine, pictures, and what a machine can carry."""
