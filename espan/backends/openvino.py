"""A network by OpenVINO, on the CPU, when asked for by name.

One model serves images of all sizes: one for each size had to be compiled for every image of a
folder, and is no faster (docs/deployment.md).
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espan.backends.base import Work, bound
from espan.backends.lowering import lower
from espan.backends.program import PICTURE, Convolution, Normalise, Tail, unfused
from espan.errors import DeviceError
from espan.networks.network import Network
from espan.system.extras import extra

# By OpenVINO's names: of what a CPU can, and of what a model is to be computed in.
CAPABILITIES = {torch.float32: "FP32", torch.bfloat16: "BF16", torch.float16: "FP16"}
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# Bytes held per input pixel and channel, measured at 480 x 480.
HOLDS = {torch.float32: 41, torch.bfloat16: 34, torch.float16: 34}


class OpenVino:
    """A backend: `OpenVino(net)(x)` is `net(x)` by OpenVINO.

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
        return n * height * width * self.channels * HOLDS[self.dtype]

    def explain(self) -> str:
        return f"OpenVINO on the CPU in {self.dtype}"

    def bind(self, pixels: Tensor) -> Work:
        return bound(self, torch.float32, pixels)


@functools.cache
def _core():
    """OpenVINO, once and until the process ends.

    Its CPU plugin gives the thread that loads it a stack for signals, and takes the memory away as
    it goes: with two that do not go in the reverse order, the next Ctrl-C ended the process.
    """
    return extra("openvino", "backend 'openvino'", "openvino", DeviceError).Core()


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
        return ops.multiply(ops.subtract(x, numbers(step.mean)), np.float32(step.factor))

    picture = ops.parameter([-1, -1, -1, 3], np.float32, name="picture")
    values = {PICTURE: ops.transpose(picture, [0, 3, 1, 2])}
    steps = unfused(lower(net))
    builders: dict[type, Any] = {Normalise: normalise, Tail: tail}
    for step in steps:
        build = builders.get(type(step), convolution)
        values[step.makes] = build(step, *(values[name] for name in step.reads))
    result = ops.transpose(values[steps[-1].makes], [0, 2, 3, 1])
    return openvino.Model([result], [picture], type(net).__name__)
