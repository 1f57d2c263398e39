"""Exports networks to files for other programs."""

# Suffixes of exported files by format.
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
