"""Launches of CUDA kernels for steps: weights packed once, values in NC/8HW8 layout.

The image that the first step reads and the result of the last are channels_last. "cuda" kernels run
on every GPU, "cuda_wgmma" kernels on compute capability 9.0.
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from espan.backends.program import Block, Conv, Fused, Head, Tail
from espan_kernels.conv3x3 import kernel_cuda as conv3x3
from espan_kernels.conv3x3 import kernel_wgmma as conv3x3_wgmma
from espan_kernels.conv9x9_head import kernel_cuda as head
from espan_kernels.conv9x9_head import kernel_wgmma as head_wgmma
from espan_kernels.machine import fp16_accumulation_pays
from espan_kernels.spab import kernel_cuda as spab
from espan_kernels.spab import kernel_wgmma as spab_wgmma
from espan_kernels.tail import kernel_cuda as tail
from espan_kernels.tail import kernel_wgmma as tail_wgmma

# Most channels of a block that runs as one kernel; above, hidden feature maps go through memory.
ONE_KERNEL = 32


class Launch(Protocol):
    """Runs the kernel of a step on its inputs, into `out`.

    options: `scratch`, a tensor like `out`, for a step that `needs_scratch`; `clamp` and `uint8`,
    same as for `tail`; `overlap`, same as for `launch` of the wgmma kernels; `trusted`, the tensor
    of one bool that a tail writes if it checks its inputs, or None.
    """

    def __call__(self, out: Tensor, *inputs: Tensor, **options: Any) -> None: ...


def launch_of(step: Fused, impl: str) -> Launch:
    """The launch of a step by kernel `impl`. Packs its weights now."""
    return _LAUNCHES[impl, type(step)](step)


def _head(step: Head) -> Launch:
    packed = head.pack(step.weight, step.bias)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        (x,) = inputs
        head.launch(x, "channels_last", packed, out, "nc8hw8")

    return launch


def _conv(step: Conv) -> Launch:
    packed = conv3x3.pack(step.weight, step.bias, _is_plain(step))

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        x, *gates = inputs
        gate = gates[0] if gates else None
        conv3x3.launch(x, packed, out, step.act, gate, "nc8hw8", _fp16_accumulation(out))

    return launch


def _block(step: Block) -> Launch:
    packed = spab.pack(step.weights, step.biases)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        (x,) = inputs
        scratch = options["scratch"] if needs_scratch(step) else None
        spab.launch(x, packed, out, "nc8hw8", scratch, _fp16_accumulation(out))

    return launch


def _tail(step: Tail) -> Launch:
    packed = tail.pack(step.weights, step.bias, step.up_weight, step.up_bias)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        clamp = options["clamp"] or options["uint8"]
        tail.launch(inputs, "nc8hw8", packed, out, "channels_last", step.scale, clamp)

    return launch


def _head_wgmma(step: Head) -> Launch:
    packed = head_wgmma.pack(step.weight, step.bias)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        (x,) = inputs
        head_wgmma.launch(x, "channels_last", packed, out, options["overlap"])

    return launch


def _conv_wgmma(step: Conv) -> Launch:
    packed = conv3x3_wgmma.pack(step.weight, step.bias, _is_plain(step))

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        x, *gates = inputs
        gate = gates[0] if gates else None
        conv3x3_wgmma.launch(x, packed, out, step.act, gate, options["overlap"])

    return launch


def _block_wgmma(step: Block) -> Launch:
    packed = spab_wgmma.pack(step.weights, step.biases)

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        (x,) = inputs
        scratch = options["scratch"] if needs_scratch(step) else None
        spab_wgmma.launch(x, packed, out, scratch, options["overlap"])

    return launch


def _tail_wgmma(step: Tail) -> Launch:
    order = tail_wgmma.order(step.weights)
    weights = [step.weights[i] for i in order]
    packed = tail_wgmma.pack(weights, step.bias, step.up_weight, step.up_bias)
    limit = tail_wgmma.limit_bits(step.limit())

    def launch(out: Tensor, *inputs: Tensor, **options: Any) -> None:
        clamp, trusted = options["clamp"] or options["uint8"], options["trusted"]
        ends = out, "channels_last", step.scale, clamp
        given = [inputs[i] for i in order]
        tail_wgmma.launch(given, packed, *ends, trusted, limit, options["overlap"])

    return launch


_LAUNCHES: dict[tuple[str, type[Fused]], Callable[[Any], Launch]] = {
    ("cuda", Head): _head,
    ("cuda", Conv): _conv,
    ("cuda", Block): _block,
    ("cuda", Tail): _tail,
    ("cuda_wgmma", Head): _head_wgmma,
    ("cuda_wgmma", Conv): _conv_wgmma,
    ("cuda_wgmma", Block): _block_wgmma,
    ("cuda_wgmma", Tail): _tail_wgmma,
}


def needs_scratch(step: Fused) -> bool:
    """Whether the step's launch needs a buffer for hidden feature maps."""
    return isinstance(step, Block) and step.channels > ONE_KERNEL


def _is_plain(step: Conv) -> bool:
    """Whether the convolution has neither gate nor activation."""
    return step.gate is None and step.act == "none"


def _fp16_accumulation(out: Tensor) -> bool:
    return fp16_accumulation_pays(out.device) and out.size(1) > 3
