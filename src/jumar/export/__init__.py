"""Policies as files that other programs run: ONNX graphs of all that lies between an observation and an action."""
