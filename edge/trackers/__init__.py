"""Following objects over time (``edge.interfaces.Tracker``)."""
