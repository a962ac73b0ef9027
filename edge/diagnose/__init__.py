"""What is wrong with this machine or with a running daemon, in sentences."""
