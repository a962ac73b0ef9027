"""What an ONNX file will cost or break on its way to an engine."""
