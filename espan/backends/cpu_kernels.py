"""A folded network on a CPU in bfloat16 or float32, by the kernels of `espan_kernels.cpu`.

Feature maps lie in memory as rows of pixels, with zeros above them, below them and behind each row.
A convolution reads neighbours where they lie; left of a row is the end of the row before it. What
one row of its kernel reads is contiguous, and divided into taps.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, zeros

from espan.backends.base import Work, bound
from espan.backends.lowering import lower
from espan.backends.program import IMAGE, RESULT, Convolution, Normalise, Tail, released, unfused
from espan.networks.network import Network
from espan.system.devices import one_thread
from espan_kernels import cpu
from espan_kernels.cpu import GROUP, MAX_CHANNELS, NOWHERE, TAP, Layer, Place, pitch

SUM = "sum"  # what the tail enlarges


def refusal(net: Network) -> str | None:
    """Why `CpuKernels` cannot run `net` here; None if it can."""
    channels = net.config["channels"]
    if channels > MAX_CHANNELS:
        return f"CPU kernels take up to {MAX_CHANNELS} channels, got {channels}"
    return cpu.refusal(next(net.parameters()).dtype)


class CpuKernels:
    """A backend: `CpuKernels(net)(x)` is `net(x)`, x (N, 3, H, W) -> (N, 3, scale*H, scale*W).

    net: a folded ESPAN, SPAN or SPANF in bfloat16 or float32 on the CPU; its weights are copied.
    The result is channels_last and has no gradient. Keeps the maps of the last size of image;
    thread-safe: each thread has its own maps. unit: one of `espan_kernels.cpu.UNITS`, the fastest
    by default.
    """

    def __init__(self, net: Network, unit: str | None = None):
        self.scale, self.dtype = net.scale, next(net.parameters()).dtype
        self.unit = unit or cpu.unit(self.dtype) or "none"
        self._name = type(net).__name__
        with torch.no_grad(), one_thread():
            *steps, tail = unfused(lower(net))
            assert isinstance(tail, Tail)  # of every network
            first = steps[0]
            self._normalise = first if isinstance(first, Normalise) else None
            self._input = first.makes if self._normalise else IMAGE
            convolutions = [step for step in steps if isinstance(step, Convolution)]
            self._pitch = {step.makes: pitch(step.channels, self.unit) for step in convolutions}
            self._pitch |= {self._input: 3, SUM: pitch(len(tail.bias), self.unit)}
            self._steps = [self._packed(step) for step in convolutions] + self._packed_tail(tail)
        self._slots, self._channels = self._share_out()
        self._idle: list[Maps] = []

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        out = _empty((n, self.scale * height, self.scale * width, 3), self.dtype)
        if out.numel():
            maps = self._take(height, width)
            for image, result in zip(x, out, strict=True):
                maps.fill(self._input, self._normalise.eager(image) if self._normalise else image)
                end = Place(result.data_ptr(), result.stride(0), result.stride(1))
                layers = [*maps.layers[:-1], replace(maps.layers[-1], out=end)]
                cpu.run(layers, torch.get_num_threads(), self.unit)
            self._idle.append(maps)
        return out.permute(0, 3, 1, 2)

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes that it takes for n images (3, H, W), beside what it keeps from before."""
        maps = sum(_Layout(height, width, channels).elements for channels in self._channels)
        values = maps + n * 3 * self.scale**2 * height * width
        kept = sum(maps.bytes for maps in self._idle[-1:])
        return max(0, values * self.dtype.itemsize - kept)

    def explain(self) -> str:
        return f"{self._name} by the CPU kernels of espan_kernels ({self.unit}), in {self.dtype}"

    def bind(self, pixels: Tensor) -> Work:
        return bound(self, self.dtype, pixels)

    def _share_out(self) -> tuple[dict[str, int], list[int]]:
        """(the map of each value, the channels of each map): a map is used again once free."""
        slots, channels, free = {self._input: 0}, [3], dict[int, list[int]]()
        for step, done in zip(self._steps[:-1], released(self._steps), strict=False):
            if idle := free.get(self._pitch[step.makes]):
                slots[step.makes] = idle.pop()
            else:
                slots[step.makes] = len(channels)
                channels.append(self._pitch[step.makes])
            for name in done:
                free.setdefault(channels[slots[name]], []).append(slots[name])
        return slots, channels

    def _packed(self, step: Convolution) -> "_Packed":
        epilogue = "gate" if step.gate else step.act
        return self._sum(step.makes, [(step.source, step.weight)], step.bias, epilogue, step.gate)

    def _packed_tail(self, tail: Tail) -> list["_Packed"]:
        inputs = [*zip(tail.sources, tail.weights, strict=True)]
        weight, bias = tail.colour_last()
        enlarge = self._sum(RESULT, [(SUM, weight)], bias, "shuffle")
        return [self._sum(SUM, inputs, tail.bias), replace(enlarge, scale=tail.scale)]

    def _sum(
        self,
        makes: str,
        inputs: list[tuple[str, Tensor]],
        bias: Tensor,
        epilogue: str = "none",
        gate: str | None = None,
    ) -> "_Packed":
        """The sum of convolutions of several inputs, with weights (channels, C, k, k) of odd k."""
        taps, matrices = [], []
        for name, weight in inputs:
            k = weight.shape[2]
            # (channels, C, k, k) to rows of the kernel (k, k * pitch, channels).
            rows = F.pad(weight.permute(2, 3, 1, 0), (0, 0, 0, self._pitch[name] - weight.shape[1]))
            for row, matrix in enumerate(rows.flatten(1, 2)):
                for first, part in enumerate(matrix.split(TAP)):
                    taps.append(_Tap(name, row - k // 2, -(k // 2), first * TAP, len(part)))
                    matrices.append(part)
        packed, wide = cpu.pack(matrices, self.dtype), cpu.pack_bias(bias)
        return _Packed(makes, taps, packed, wide, len(bias), epilogue, gate)

    def _take(self, height: int, width: int) -> "Maps":
        try:
            maps = self._idle.pop()
        except IndexError:
            maps = None
        if maps and maps.size == (height, width):
            return maps
        maps = None  # frees the old maps before the new ones are allocated
        return Maps(height, width, self._slots, self._channels, self._steps, self.dtype)


class _Tap(NamedTuple):
    """The values that a tap reads of a map: rows and columns from the pixel, the first of them."""

    source: str
    rows: int
    columns: int
    first: int
    values: int


@dataclass(frozen=True)
class _Packed:
    """A convolution whose weights are packed."""

    makes: str
    taps: list[_Tap]
    weights: Tensor
    bias: Tensor
    channels: int
    epilogue: str = "none"
    gate: str | None = None
    scale: int = 1

    @property
    def reads(self) -> tuple[str, ...]:
        return *(tap.source for tap in self.taps), *([self.gate] if self.gate else ())


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty(shape, dtype=dtype)` by malloc.

    torch.empty aligns to 64 bytes. glibc cuts what it frees so that the next aligned request of the
    same size does not fit, and the heap grew by the result of every tile.
    """
    as_integers = {2: np.int16, 4: np.int32}[dtype.itemsize]  # NumPy has no bfloat16
    return torch.from_numpy(np.empty(shape, as_integers)).view(dtype)


class _Layout:
    """A map (H, W, C) in memory: its first pixel and its length, in elements."""

    def __init__(self, height: int, width: int, channels: int):
        # The 9x9 convolution of an image reads four pixels beyond it, all others one.
        self.border = 4 if channels == 3 else 1
        self.row, self.pixel = (width + self.border) * channels, channels
        before = self.border * (self.row + channels)
        self.first = before + -before % TAP  # where memory is aligned to 64 bytes, so is a tap
        columns = width + GROUP - 1 + self.border  # of full groups
        below = (height - 1 + self.border) * self.row
        self.elements = self.first + below + columns * channels + TAP


class Maps:
    """Memory for the maps of one image, and the layers that read and write it."""

    def __init__(
        self,
        height: int,
        width: int,
        slots: dict[str, int],
        channels: list[int],
        steps: list[_Packed],
        dtype: torch.dtype,
    ):
        self.size, self._slots = (height, width), slots
        self._layouts = [_Layout(height, width, each) for each in channels]
        # Zeros, as borders stay so and what lies behind them is multiplied by zero.
        self._maps = [zeros(each.elements, dtype=dtype) for each in self._layouts]
        self.bytes = sum(each.nbytes for each in self._maps)
        self.layers = [self._layer(step) for step in steps]

    def fill(self, name: str, image: Tensor) -> None:
        """The map of that name becomes `image`, (3, H, W) or (1, 3, H, W)."""
        slot = self._slots[name]
        layout = self._layouts[slot]
        inside = self._maps[slot].as_strided(
            (*self.size, 3), (layout.row, layout.pixel, 1), layout.first
        )
        inside.copy_(image.view(3, *self.size).permute(1, 2, 0))

    def _layer(self, step: _Packed) -> Layer:
        return Layer(
            [self._place(*tap) for tap in step.taps],
            step.weights,
            step.bias,
            step.channels,
            self._place(step.makes) if step.makes in self._slots else NOWHERE,
            *self.size,
            max(abs(tap.rows) for tap in step.taps),
            step.epilogue,
            self._place(step.gate) if step.gate else NOWHERE,
            step.scale,
        )

    def _place(
        self, name: str, rows: int = 0, columns: int = 0, first: int = 0, values: int = TAP
    ) -> Place:
        layout, pixels = self._layouts[self._slots[name]], self._maps[self._slots[name]]
        element = layout.first + rows * layout.row + columns * layout.pixel + first
        address = pixels.data_ptr() + pixels.itemsize * element
        return Place(address, layout.row, layout.pixel, values)
