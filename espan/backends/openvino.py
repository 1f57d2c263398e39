"""The OpenVINO backend, on the CPU; never chosen by "auto".

One model serves all image sizes: a model per size would be compiled for each image of a folder and
is no faster (docs/deployment.md).
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espan.backends.base import Work, bound
from espan.backends.lowering import lower
from espan.backends.program import IMAGE, Convolution, Normalise, Tail, unfused
from espan.errors import DeviceError
from espan.networks.network import Network
from espan.system.extras import extra

# OpenVINO's names of dtypes: as CPU capabilities, and as inference precisions.
CAPABILITIES = {torch.float32: "FP32", torch.bfloat16: "BF16", torch.float16: "FP16"}
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# Bytes per input pixel and channel, measured at 480 x 480.
HOLDS = {torch.float32: 41, torch.bfloat16: 34, torch.float16: 34}


class OpenVino:
    """A backend: `OpenVino(net)(x)` is `net(x)` by OpenVINO.

    net: folded, on the CPU, in a dtype that OpenVINO supports on this CPU; OpenVINO may compute
    parts in float32. The result is float32 in channels_last memory. Uses PyTorch's number of
    threads at construction. Thread-safe. Raises DeviceError if OpenVINO is missing or does not
    support the dtype.
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
        # A request owns the feature maps of one call: each thread takes its own.
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        pixels = x.detach().float().permute(0, 2, 3, 1).contiguous().numpy()
        (y,) = request.infer({0: pixels}, share_inputs=True).to_tuple()
        self._idle.append(request)
        return torch.from_numpy(y).permute(0, 3, 1, 2)

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes for n images (3, H, W)."""
        return n * height * width * self.channels * HOLDS[self.dtype]

    def explain(self) -> str:
        return f"OpenVINO on the CPU in {self.dtype}"

    def bind(self, pixels: Tensor) -> Work:
        return bound(self, torch.float32, pixels)


@functools.cache
def _core():
    """The OpenVINO core, created once and kept until the process ends.

    Its CPU plugin installs a signal stack on the thread that loads it and frees it when unloaded.
    Two cores not unloaded in reverse order made the next Ctrl-C crash the process.
    """
    return extra("openvino", "backend 'openvino'", "openvino", DeviceError).Core()


def openvino_model(net: Network):
    """`net` as an OpenVINO graph, on images (N, H, W, 3) -> (N, scale*H, scale*W, 3).

    OpenVINO's converter for PyTorch takes seconds rather than milliseconds, and sends telemetry.
    """
    import openvino
    from openvino import opset13 as ops

    def constant(tensor: Tensor):
        return ops.constant(tensor.detach().float().contiguous().numpy())

    def conv(x, weight: Tensor, bias: Tensor | None = None):
        pad = [weight.shape[-1] // 2] * 2
        y = ops.convolution(x, constant(weight), [1, 1], pad, pad, [1, 1])
        return y if bias is None else ops.add(y, constant(bias.view(1, -1, 1, 1)))

    def tail(step: Tail, first, *others):
        total = conv(first, step.weights[0], step.bias)
        for other, weight in zip(others, step.weights[1:], strict=True):
            total = ops.add(total, conv(other, weight))
        y = conv(total, step.up_weight, step.up_bias)
        return ops.depth_to_space(y, "depth_first", step.scale)

    def convolution(step: Convolution, x, *gates):
        y = conv(x, step.weight, step.bias)
        for gate in gates:
            y = ops.multiply(ops.add(y, gate), ops.subtract(ops.sigmoid(y), np.float32(0.5)))
        return ops.swish(y) if step.act == "silu" else y

    def normalise(step: Normalise, x):
        if step.mean is None:
            return x
        return ops.multiply(ops.subtract(x, constant(step.mean)), np.float32(step.factor))

    image = ops.parameter([-1, -1, -1, 3], np.float32, name="image")
    values = {IMAGE: ops.transpose(image, [0, 3, 1, 2])}
    steps = unfused(lower(net))
    builders: dict[type, Any] = {Normalise: normalise, Tail: tail}
    for step in steps:
        build = builders.get(type(step), convolution)
        values[step.makes] = build(step, *(values[name] for name in step.reads))
    result = ops.transpose(values[steps[-1].makes], [0, 2, 3, 1])
    return openvino.Model([result], [image], type(net).__name__)
