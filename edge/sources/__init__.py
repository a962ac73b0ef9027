"""Where frames come from: one file per library, one protocol (``edge.interfaces.Source``)."""
