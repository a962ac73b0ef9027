"""Data sets: reading, checking, augmenting, caching."""
