"""What a plan is made of: ops with their weights, each reading values and making one; and the
networks as lists of them.

A step knows the two ways to run its op: the arguments of the op itself, on pictures (N, C, H, W),
and the CUDA kernel's launch, on planes (N, C/8, H, W, 8) with weights packed before. What the first
step reads and the last one makes are pictures in both, in channels_last memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from espan.networks.layers import SPAB
from espan.networks.models import ESPAN, SPAN, SPANF
from espan_kernels import OPS, pack_weight
from espan_kernels.conv3x3 import kernel_cuda as conv3x3_cuda
from espan_kernels.conv9x9_head import kernel_cuda as head_cuda
from espan_kernels.machine import half_sums_pay
from espan_kernels.merge import add_to_centre, merge_tail
from espan_kernels.op import Op
from espan_kernels.spab import kernel_cuda as spab_cuda
from espan_kernels.tail import kernel_cuda as tail_cuda

# Channels up to which a block is one CUDA kernel; past them what is hidden goes through memory.
FUSED = 32
# What the first steps read, and the last one makes.
PICTURE, RESULT = "picture", "result"


@dataclass(frozen=True)
class Step:
    """`makes`, of so many channels, out of the values that it `reads`, by their names."""

    reads: tuple[str, ...]
    makes: str
    # The op that does it; None: PyTorch's own operators.
    op: ClassVar[Op | None]
    # Whether its launch wants a buffer for what is hidden in it.
    scratch: ClassVar[bool] = False

    def __str__(self) -> str:
        name = self.op.name if self.op else type(self).__name__.lower()
        return f"{self.makes} = {name}({', '.join(self.reads)})"

    def convs(self) -> "list[Step]":
        """The same, conv by conv."""
        return [self]


@dataclass(frozen=True)
class Normalise(Step):
    """(x - mean) * factor of a picture; of uint8 too, which stands for x / 255."""

    dtype: torch.dtype
    mean: Tensor | None = None
    factor: float = 1.0
    op = None
    channels: ClassVar[int] = 3

    def run(self, x: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            x = x.to(self.dtype) / 255
        return x if self.mean is None else (x - self.mean) * self.factor


@dataclass(frozen=True)
class Head(Step):
    weight: Tensor
    bias: Tensor
    op = OPS["conv9x9_head"]

    @property
    def channels(self) -> int:
        return len(self.bias)

    def arguments(self, x: Tensor) -> tuple:
        return x, self.weight, self.bias

    def pack(self) -> tuple:
        return head_cuda.pack(self.weight, self.bias)

    def launch(self, packed, out: Tensor, x: Tensor) -> None:
        head_cuda.launch(x, "channels_last", packed, out, "planes")


@dataclass(frozen=True)
class Conv(Step):
    """A 3x3 convolution; a second value that it reads is its gate."""

    weight: Tensor
    bias: Tensor
    act: str = "none"
    op = OPS["conv3x3"]

    @property
    def channels(self) -> int:
        return len(self.bias)

    def arguments(self, x: Tensor, gate: Tensor | None = None) -> tuple:
        return x, self.weight, self.bias, self.act, gate

    def pack(self) -> tuple:
        return conv3x3_cuda.pack(self.weight, self.bias, gated=len(self.reads) == 2)

    def launch(self, packed, out: Tensor, x: Tensor, gate: Tensor | None = None) -> None:
        conv3x3_cuda.launch(x, packed, out, self.act, gate, "planes", _half_sums(out))


@dataclass(frozen=True)
class Block(Step):
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    op = OPS["spab"]

    @property
    def channels(self) -> int:
        return len(self.biases[0])

    def arguments(self, x: Tensor) -> tuple:
        return x, list(self.weights), list(self.biases)

    @property
    def scratch(self) -> bool:
        return self.channels > FUSED

    def convs(self) -> list[Step]:
        hidden, convs = self.reads[0], []
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            last = i == len(self.biases)
            reads = (hidden, *self.reads) if last else (hidden,)
            hidden = self.makes if last else f"{self.makes} conv {i}"
            convs.append(Conv(reads, hidden, weight, bias, "none" if last else "silu"))
        return convs

    def pack(self) -> tuple:
        return spab_cuda.pack(self.weights, self.biases)

    def launch(self, packed, out: Tensor, x: Tensor, scratch: Tensor | None = None) -> None:
        spab_cuda.launch(x, packed, out, "planes", scratch, _half_sums(out))


@dataclass(frozen=True)
class Tail(Step):
    weights: tuple[Tensor, ...]
    bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    scale: int
    op = OPS["tail"]
    channels: ClassVar[int] = 3

    def arguments(self, *inputs: Tensor, clamp: bool = False, uint8: bool = False) -> tuple:
        weights = list(self.weights), self.bias, self.up_weight, self.up_bias
        return list(inputs), *weights, self.scale, clamp, uint8

    def pack(self) -> tuple:
        return tail_cuda.pack(self.weights, self.bias, self.up_weight, self.up_bias)

    def launch(
        self, packed, out: Tensor, *inputs: Tensor, clamp: bool = False, uint8: bool = False
    ):
        tail_cuda.launch(inputs, "planes", packed, out, "channels_last", self.scale, clamp or uint8)

    def limit(self) -> float:
        """How large inputs may be for the result to be sure to have no NaN.

        The sum inside is kept in the dtype of the weights, the result's own adds up in float32.
        """
        ends = [self.bias, self.up_weight, self.up_bias, *self.weights]
        if not all(tensor.isfinite().all() for tensor in ends):
            return -1.0
        bias, up_weight, up_bias = (
            t.double().abs() for t in (self.bias, self.up_weight, self.up_bias)
        )
        most = 0.99 * torch.finfo(torch.float32).max
        largest = 0.99 * torch.finfo(self.bias.dtype).max
        sums = ((most - up_bias) / up_weight.sum((1, 2, 3))).min().clamp(max=largest)
        gain = sum(weight.double().abs().sum((1, 2, 3)) for weight in self.weights)
        return ((sums - bias) / gain).min().clamp(max=largest).item()


def _half_sums(planes: Tensor) -> bool:
    return half_sums_pay(planes.device) and planes.size(1) > 3


def _packed(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    return pack_weight(conv.weight.detach()), conv.bias.detach().clone()


def _by_convs(reads: str, makes: str, block: SPAB) -> list[Step]:
    """An attention block of any number of convs, conv by conv."""
    hidden, steps = reads, []
    for i, conv in enumerate(block.convs[:-1], 1):
        steps.append(Conv((hidden,), f"{makes} conv {i}", *_packed(conv), act="silu"))
        hidden = steps[-1].makes
    return [*steps, Conv((hidden, reads), makes, *_packed(block.convs[-1]))]


def _blocks(reads: str, blocks: Iterable[SPAB], first: int = 1) -> list[Step]:
    """One block after another."""
    steps = []
    for i, block in enumerate(blocks, first):
        makes = f"block {i}"
        if len(block.convs) in (2, 3):
            weights, biases = zip(*map(_packed, block.convs), strict=True)
            steps.append(Block((reads,), makes, weights, biases))
        else:
            steps += _by_convs(reads, makes, block)
        reads = makes
    return steps


def _wide(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    return conv.weight.double(), conv.bias.double()


def _tail(reads, weights: list[Tensor], bias: Tensor, up: nn.Conv2d, scale: int) -> Tail:
    """Its weights rounded once from float64."""
    weights = tuple(pack_weight(weight.to(up.weight.dtype)) for weight in weights)
    return Tail(reads, RESULT, weights, bias.to(up.weight.dtype), *_packed(up), scale)


def _espan(net: ESPAN) -> list[Step]:
    steps = [Head((PICTURE,), "feature", *_packed(net.conv_1)), *_blocks("feature", net.blocks)]
    slices = [net.config["channels"]] * 4
    (feature_w, merged, first_w, last_w), bias = merge_tail(
        *_wide(net.conv_2), *_wide(net.conv_cat), slices, 1
    )
    weights = [add_to_centre(merged, last_w), feature_w, first_w]
    reads = steps[-1].makes, "feature", "block 1"
    return [*steps, _tail(reads, weights, bias, net.upsampler, net.scale)]


def _span(net: SPAN) -> list[Step]:
    picture = Normalise(
        (PICTURE,), "normalised", net.conv_1.weight.dtype, net.mean.clone(), net.img_range
    )
    head = Conv((picture.makes,), "feature", *_packed(net.conv_1))
    steps = [picture, head, *_blocks("feature", net.blocks[:-1])]
    # The last block by its convs: the tail wants what follows the first one.
    last = f"block {len(net.blocks)}"
    steps += _by_convs(steps[-1].makes, last, net.blocks[-1])
    slices = [net.config["channels"]] * 4
    (feature_w, merged, first_w, inner_w), bias = merge_tail(
        *_wide(net.conv_2), *_wide(net.conv_cat), slices, 1
    )
    reads = last, "feature", "block 1", f"{last} conv 1"
    weights = [merged, feature_w, first_w, inner_w]
    return [*steps, _tail(reads, weights, bias, net.upsampler, net.scale)]


def _spanf(net: SPANF) -> list[Step]:
    c1, c2, c3 = map(_packed, net.block_1)
    steps = [
        Normalise((PICTURE,), "normalised", c1[0].dtype),
        Conv(("normalised",), "block 1 conv 1", *c1, act="silu"),
        Conv(("block 1 conv 1",), "block 1 conv 2", *c2, act="silu"),
        Conv(("block 1 conv 2",), "block 1", *c3),
        *_blocks("block 1", net.blocks, first=2),
    ]
    weight, bias = _wide(net.conv_cat)
    repeats, channels = net.scale**2, net.config["channels"]
    near_w, last_w, first_w = weight.split([3 * repeats, channels, channels], dim=1)
    # Each colour enters repeated: one input with the sum of its weights is the same.
    picture_w = near_w.unflatten(1, (3, repeats)).sum(2)
    reads = steps[-1].makes, "normalised", "block 1"
    return [*steps, _tail(reads, [last_w, picture_w, first_w], bias, net.conv_2, net.scale)]


STEPS = {ESPAN: _espan, SPAN: _span, SPANF: _spanf}
