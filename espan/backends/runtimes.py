"""Other programs that run a network on the CPU: OpenVINO and ONNX Runtime, when asked for by name.

Both hold one model for pictures of all sizes: one for each size had to be compiled for every
picture of a folder, and is no faster (docs/deployment.md).
"""

import functools

import numpy as np
import torch
from torch import Tensor

from espan.backends.onnx_files import onnx_bytes, read_onnx
from espan.backends.program import PICTURE, STEPS, Conv, Normalise, Step, Tail
from espan.errors import DeviceError
from espan.networks.models import Network
from espan.system.extras import extra

# By OpenVINO's names: of what a CPU can, and of what a model is to be computed in.
CAPABILITIES = {torch.float32: "FP32", torch.bfloat16: "BF16", torch.float16: "FP16"}
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# Bytes held per input pixel and channel, measured at 480 x 480.
OPENVINO_HOLDS = {torch.float32: 41, torch.bfloat16: 34, torch.float16: 34}
ONNX_HOLDS = 57


class OpenVino:
    """`OpenVino(net)(x)` is `net(x)` by OpenVINO: x (N, 3, H, W) -> (N, 3, scale*H, scale*W).

    net: folded, on the CPU, in a dtype that OpenVINO computes in there; it may still keep what
    it finds better so in float32. The result is float32 in channels_last memory. As many threads
    as PyTorch has when it is made; safe between threads. DeviceError if OpenVINO is missing, or
    cannot compute in this dtype.
    """

    def __init__(self, net: Network):
        self.scale, self.dtype = net.scale, next(net.parameters()).dtype
        self.channels = net.config["channels"]
        core, wanted = _core(), CAPABILITIES[self.dtype]
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if wanted not in able:
            names = ", ".join(name for name in CAPABILITIES.values() if name in able)
            raise DeviceError(f"backend 'openvino': computes in {names} here, not in {wanted}")
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compiled = core.compile_model(openvino_model(net), "CPU", options)
        self._idle: list = []

    def __call__(self, x: Tensor) -> Tensor:
        # A request holds the maps of a picture under way: threads have one each.
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        pixels = x.detach().float().permute(0, 2, 3, 1).contiguous().numpy()
        (y,) = request.infer({0: pixels}, share_inputs=True).to_tuple()
        self._idle.append(request)
        return torch.from_numpy(y).permute(0, 3, 1, 2)

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes that it will take for n pictures (3, H, W)."""
        return n * height * width * self.channels * OPENVINO_HOLDS[self.dtype]

    def explain(self) -> str:
        return f"OpenVINO on the CPU in {self.dtype}"


@functools.cache
def _core():
    """OpenVINO, once and until the process ends.

    Its CPU plugin gives the thread that loads it a stack for signals, and takes the memory away as
    it goes: with two that do not go in the reverse order, the next Ctrl-C ended the process.
    """
    return extra("openvino", "backend 'openvino'", "openvino", DeviceError).Core()


class OnnxRuntime:
    """As `OpenVino`, by ONNX Runtime, which computes convolutions on CPUs in float32 alone."""

    def __init__(self, net: Network):
        extra("onnxruntime", "backend 'onnx'", "export", DeviceError)
        extra("onnxscript", "backend 'onnx'", "export", DeviceError)
        if (dtype := next(net.parameters()).dtype) != torch.float32:
            raise DeviceError(f"backend 'onnx': computes in float32, not in {dtype}")
        self.scale, self.channels = net.scale, net.config["channels"]
        self._run = read_onnx(onnx_bytes(net, torch.float32))

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(picture) for picture in x.detach().split(1)])

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes that it will take for pictures (3, H, W), of which it computes one at a time."""
        return height * width * self.channels * ONNX_HOLDS

    def explain(self) -> str:
        return "ONNX Runtime on the CPU in torch.float32"


BY_NAME = {"openvino": OpenVino, "onnx": OnnxRuntime}


def openvino_model(net: Network):
    """`net` as OpenVINO's own graph, on pictures (N, H, W, 3) -> (N, scale*H, scale*W, 3).

    Its converters read a PyTorch network too, in seconds rather than milliseconds, and report
    their use to OpenVINO's makers.
    """
    import openvino
    from openvino import opset13 as ops

    def numbers(tensor: Tensor):
        return ops.constant(tensor.detach().float().contiguous().numpy())

    def conv(x, weight: Tensor, bias: Tensor | None = None):
        pad = [weight.shape[-1] // 2] * 2
        y = ops.convolution(x, numbers(weight), [1, 1], pad, pad, [1, 1])
        return y if bias is None else ops.add(y, numbers(bias.view(1, -1, 1, 1)))

    def run(step: Step, x, *others):
        if isinstance(step, Normalise):
            if step.mean is None:
                return x
            return ops.multiply(ops.subtract(x, numbers(step.mean)), np.float32(step.factor))
        if isinstance(step, Tail):
            inputs = zip(others, step.weights[1:], strict=True)
            total = conv(x, step.weights[0], step.bias)
            for other, weight in inputs:
                total = ops.add(total, conv(other, weight))
            y = conv(total, step.up_weight, step.up_bias)
            return ops.depth_to_space(y, "depth_first", step.scale)
        y = conv(x, step.weight, step.bias)
        if others:
            gate = ops.subtract(ops.sigmoid(y), np.float32(0.5))
            return ops.multiply(ops.add(y, others[0]), gate)
        return ops.swish(y) if isinstance(step, Conv) and step.act == "silu" else y

    picture = ops.parameter([-1, -1, -1, 3], np.float32, name="picture")
    values = {PICTURE: ops.transpose(picture, [0, 3, 1, 2])}
    steps = [part for step in STEPS[type(net)](net) for part in step.convs()]
    for step in steps:
        values[step.makes] = run(step, *(values[name] for name in step.reads))
    result = ops.transpose(values[steps[-1].makes], [0, 2, 3, 1])
    return openvino.Model([result], [picture], type(net).__name__)
