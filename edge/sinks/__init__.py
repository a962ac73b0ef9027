"""Where results go: one file per kind, one protocol (``edge.interfaces.Sink``)."""
