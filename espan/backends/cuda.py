"""Steps as launches of CUDA kernels: weights packed before, values in planes (N, C/8, H, W, 8).

What the first step reads and the last one makes are images, in channels_last memory.
"""

from functools import singledispatch
from typing import Any, Protocol

from torch import Tensor

from espan.backends.program import Block, Conv, Fused, Head, Tail
from espan_kernels.conv3x3 import kernel_cuda as conv3x3
from espan_kernels.conv9x9_head import kernel_cuda as head
from espan_kernels.machine import half_sums_pay
from espan_kernels.spab import kernel_cuda as spab
from espan_kernels.tail import kernel_cuda as tail

# Channels up to which a block is one kernel; past them what is hidden goes through memory.
ONE_KERNEL = 32


class Launch(Protocol):
    """Runs a step's kernel on its inputs, into `out`.

    options: `scratch`, planes as those of `out`, for a step that `needs_scratch`; `clamp` and
    `uint8`, as of `tail`.
    """

    def __call__(self, out: Tensor, *inputs: Tensor, **options: Any) -> None: ...


@singledispatch
def launch_of(step: Fused) -> Launch:
    """The launch of a step, its weights packed now."""
    raise TypeError(f"{type(step).__name__} has no CUDA kernel")


@launch_of.register
def _head(step: Head) -> Launch:
    packed = head.pack(step.weight, step.bias)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        (x,) = inputs
        head.launch(x, "channels_last", packed, out, "planes")

    return launch


@launch_of.register
def _conv(step: Conv) -> Launch:
    packed = conv3x3.pack(step.weight, step.bias, gated=step.gate is not None)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        x, *gates = inputs
        gate = gates[0] if gates else None
        conv3x3.launch(x, packed, out, step.act, gate, "planes", _half_sums(out))

    return launch


@launch_of.register
def _block(step: Block) -> Launch:
    packed = spab.pack(step.weights, step.biases)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        (x,) = inputs
        scratch = options["scratch"] if needs_scratch(step) else None
        spab.launch(x, packed, out, "planes", scratch, _half_sums(out))

    return launch


@launch_of.register
def _tail(step: Tail) -> Launch:
    packed = tail.pack(step.weights, step.bias, step.up_weight, step.up_bias)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        clamp = options["clamp"] or options["uint8"]
        tail.launch(inputs, "planes", packed, out, "channels_last", step.scale, clamp)

    return launch


def needs_scratch(step: Fused) -> bool:
    """Whether the step's launch wants a buffer for what is hidden in it."""
    return isinstance(step, Block) and step.channels > ONE_KERNEL


def _half_sums(planes: Tensor) -> bool:
    return half_sums_pay(planes.device) and planes.size(1) > 3
