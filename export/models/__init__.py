"""The networks, as plain modules."""
