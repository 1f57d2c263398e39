"""Steps, the intermediate representation of a folded network; each computes one named value.

Values are images and feature maps (N, C, H, W). `espan.backends.lowering` turns networks into
steps; `espan.backends.cuda` launches the CUDA kernels of steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from espan_kernels import OPS
from espan_kernels.op import Op

# The input of the first step and the output of the last one.
IMAGE, RESULT = "image", "result"


class Reader(Protocol):
    """A step of any backend: it reads values by their names."""

    @property
    def reads(self) -> tuple[str, ...]: ...


class Step(ABC):
    """Computes the value `makes`, (N, channels, H, W), from the values `reads`."""

    makes: str
    # As `explain` prints it.
    name: ClassVar[str]

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Names of the input values, in the order of the step's arguments."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the output."""

    @abstractmethod
    def eager(self, *inputs: Tensor, **flags: bool) -> Tensor:
        """Computes the value with PyTorch operators. flags: for the tail, see its `arguments`."""

    def __str__(self) -> str:
        return f"{self.makes} = {self.name}({', '.join(self.reads)})"


@dataclass(frozen=True)
class Normalise(Step):
    """(x - mean) * factor of an image; uint8 is divided by 255 first."""

    source: str
    makes: str
    dtype: torch.dtype
    mean: Tensor | None = None  # (1, 3, 1, 1)
    factor: float = 1.0
    name = "normalise"
    channels: ClassVar[int] = 3

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,)

    def eager(self, *inputs: Tensor, **flags: bool) -> Tensor:
        (x,) = inputs
        if x.dtype == torch.uint8:
            x = x.to(self.dtype) / 255
        return x if self.mean is None else (x - self.mean) * self.factor


class Fused(Step):
    """A step that is one op of `espan_kernels`."""

    op: ClassVar[Op]

    @abstractmethod
    def arguments(self, *inputs: Tensor, **flags: bool) -> tuple[Any, ...]:
        """The arguments of the op, except `impl`, for these inputs."""

    def eager(self, *inputs: Tensor, **flags: bool) -> Tensor:
        y: Tensor = self.op.reference(*self.arguments(*inputs, **flags))
        return y


@dataclass(frozen=True)
class Convolution(Fused):
    """Base of `Head` and `Conv`: a convolution with activation and gate."""

    source: str
    makes: str
    weight: Tensor  # (channels, C, k, k)
    bias: Tensor  # (channels,)
    act: str = "none"
    # The second input of `span_gate`, applied to the result.
    gate: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,) if self.gate is None else (self.source, self.gate)

    @property
    def channels(self) -> int:
        return len(self.bias)


class Head(Convolution):
    """The 9x9 convolution of an image; no activation, no gate."""

    op, name = OPS["conv9x9_head"], "conv9x9_head"

    def arguments(self, *inputs: Tensor, **flags: bool) -> tuple[Any, ...]:
        (x,) = inputs
        return x, self.weight, self.bias


class Conv(Convolution):
    """A 3x3 convolution."""

    op, name = OPS["conv3x3"], "conv3x3"

    def arguments(self, *inputs: Tensor, **flags: bool) -> tuple[Any, ...]:
        x, gate = inputs if self.gate is not None else (*inputs, None)
        return x, self.weight, self.bias, self.act, gate


@dataclass(frozen=True)
class Block(Fused):
    """An attention block: 3x3 convolutions with SiLU between them, gated by the block's input."""

    source: str
    makes: str
    weights: tuple[Tensor, ...]  # (channels, channels, 3, 3) each
    biases: tuple[Tensor, ...]  # (channels,) each
    op, name = OPS["spab"], "spab"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def channels(self) -> int:
        return len(self.biases[0])

    def arguments(self, *inputs: Tensor, **flags: bool) -> tuple[Any, ...]:
        (x,) = inputs
        return x, list(self.weights), list(self.biases)

    def convolutions(self) -> list[Conv]:
        """The block as single convolutions."""
        hidden, convs = self.source, []
        *inner, last = zip(self.weights, self.biases, strict=True)
        for i, (weight, bias) in enumerate(inner, 1):
            convs.append(Conv(hidden, f"{self.makes} conv {i}", weight, bias, act="silu"))
            hidden = convs[-1].makes
        return [*convs, Conv(hidden, self.makes, *last, gate=self.source)]


@dataclass(frozen=True)
class Tail(Fused):
    """The sum of a 3x3 convolution of the first input and 1x1 ones of the others, upsampled."""

    sources: tuple[str, ...]
    makes: str
    weights: tuple[Tensor, ...]  # one for each source
    bias: Tensor
    up_weight: Tensor  # (3 * scale**2, C, 3, 3)
    up_bias: Tensor
    scale: int
    op, name = OPS["tail"], "tail"
    channels: ClassVar[int] = 3

    @property
    def reads(self) -> tuple[str, ...]:
        return self.sources

    def arguments(self, *inputs: Tensor, **flags: bool) -> tuple[Any, ...]:
        """flags: `clamp` and `uint8` of the op, False by default."""
        weights = list(self.weights), self.bias, self.up_weight, self.up_bias
        clamp, uint8 = flags.get("clamp", False), flags.get("uint8", False)
        return list(inputs), *weights, self.scale, clamp, uint8

    def colour_last(self) -> tuple[Tensor, Tensor]:
        """(up_weight, up_bias) with channels (row, column, colour), the order of pixels in memory.

        The fields have them as (colour, row, column), as `pixel_shuffle` does.
        """
        order = torch.arange(3 * self.scale**2).view(3, -1).t().flatten()
        return self.up_weight[order], self.up_bias[order]

    def limit(self) -> float:
        """The largest absolute input for which the result cannot have a NaN.

        The sum of the convolutions is stored in the dtype of the weights; the upsampler accumulates
        in float32.
        """
        tensors = [self.bias, self.up_weight, self.up_bias, *self.weights]
        if not all(tensor.isfinite().all() for tensor in tensors):
            return -1.0
        bias, up_weight, up_bias = (
            t.double().abs() for t in (self.bias, self.up_weight, self.up_bias)
        )
        most = 0.99 * torch.finfo(torch.float32).max
        largest = 0.99 * torch.finfo(self.bias.dtype).max
        sums = ((most - up_bias) / up_weight.sum((1, 2, 3))).min().clamp(max=largest)
        gain = reduce(torch.add, (w.double().abs().sum((1, 2, 3)) for w in self.weights))
        return ((sums - bias) / gain).min().clamp(max=largest).item()


def unfused(steps: Iterable[Step]) -> list[Step]:
    """The steps with every block split into its convolutions."""
    parts: list[Step] = []
    for step in steps:
        parts += step.convolutions() if isinstance(step, Block) else [step]
    return parts


def released(steps: Sequence[Reader]) -> list[tuple[str, ...]]:
    """For each step, the sorted names of the values whose memory is free after it."""
    last = {name: i for i, step in enumerate(steps) for name in step.reads}
    return [tuple(sorted(n for n, at in last.items() if at == i)) for i in range(len(steps))]
