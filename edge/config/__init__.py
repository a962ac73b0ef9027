"""Every key of edge.toml: what it may be, how it is read, and what is said when it is wrong."""
