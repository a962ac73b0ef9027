"""Foreign networks made trainable: an ONNX graph read into torch, its head kept or replaced, other activations."""
