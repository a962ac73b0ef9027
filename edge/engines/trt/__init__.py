"""TensorRT without a GPU: its versions, plan files and preflight."""
