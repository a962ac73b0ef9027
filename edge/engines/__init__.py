"""What runs a model: one file per library, one protocol (``edge.interfaces.Engine``)."""
