"""The ONNX Runtime backend, on the CPU; never chosen by "auto"."""

import torch
from torch import Tensor

from espan.backends.base import Work, bound
from espan.backends.onnx_files import onnx_bytes, read_onnx
from espan.errors import DeviceError
from espan.networks.network import Network
from espan.system.extras import extra

# Bytes per input pixel and channel, measured at 480 x 480.
HOLDS = 57


class OnnxRuntime:
    """A backend: `OnnxRuntime(net)(x)` is `net(x)` by ONNX Runtime.

    net: folded, on the CPU, in float32, the only dtype of ONNX Runtime's convolutions on a CPU.
    Uses PyTorch's number of threads at construction. Raises DeviceError if ONNX Runtime is missing.
    """

    def __init__(self, net: Network):
        extra("onnxruntime", "backend 'onnx'", "export", DeviceError)
        extra("onnxscript", "backend 'onnx'", "export", DeviceError)
        dtype = next(net.parameters()).dtype
        if dtype != torch.float32:
            raise DeviceError(f"backend 'onnx': computes in float32, not in {dtype}")
        self.dtype, self.channels = dtype, net.config["channels"]
        self._run = read_onnx(onnx_bytes(net, torch.float32))

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(image) for image in x.detach().split(1)])

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes for images (3, H, W), which run one at a time."""
        return height * width * self.channels * HOLDS

    def explain(self) -> str:
        return "ONNX Runtime on the CPU in torch.float32"

    def bind(self, pixels: Tensor) -> Work:
        return bound(self, self.dtype, pixels)
