"""Backends of a folded network: kernels, CPU operators, OpenVINO, ONNX Runtime, torch.compile."""
