"""The trainer: steps, optimiser, averaging, checkpoints, processes, logs."""
