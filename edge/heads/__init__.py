"""Raw outputs to predictions: one file per family of models, one protocol (``edge.interfaces.Head``)."""
