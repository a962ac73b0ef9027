"""The toolchain: train, evaluate, quantize, convert, build engines, verify."""
