"""The ways to run a network: kernels, CPU operators, OpenVINO, ONNX Runtime, torch.compile."""
