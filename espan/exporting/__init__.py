"""Networks as files for other programs."""

# What the name of an exported file ends in, by its format.
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
