"""The HTTP server: live pictures, the interface for programs, metrics."""
