"""A folded network on a CPU in bfloat16, by the kernels of `espan_kernels.cpu`.

Feature maps lie in memory as rows of pixels, with zeros above them, below them and behind each row.
A convolution reads neighbours where they lie; left of a row is the end of the row before it. Zeros
fill the channels of a pixel up to whole taps, except in the image, where several pixels are a tap.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, zeros

from espan.backends.base import Work, bound
from espan.backends.lowering import lower
from espan.backends.program import IMAGE, RESULT, Convolution, Normalise, Tail, released, unfused
from espan.networks.network import Network
from espan.system.devices import one_thread
from espan_kernels import cpu
from espan_kernels.cpu import GROUP, MAX_CHANNELS, NOWHERE, TAP, Layer, Place

SUM = "sum"  # what the tail enlarges


def refusal(net: Network) -> str | None:
    """Why `Bfloat16Network` cannot run `net` here; None if it can."""
    some, channels = next(net.parameters()), net.config["channels"]
    if some.dtype != torch.bfloat16:
        return f"CPU kernels compute in bfloat16, not in {some.dtype}"
    if channels > MAX_CHANNELS:
        return f"CPU kernels take up to {MAX_CHANNELS} channels, got {channels}"
    return cpu.refusal()


class Bfloat16Network:
    """A backend: `Bfloat16Network(net)(x)` is `net(x)`, x (N, 3, H, W) -> (N, 3, scale*H, scale*W).

    net: a folded ESPAN, SPAN or SPANF in bfloat16 on the CPU; its weights are copied. The result is
    channels_last and has no gradient. Keeps the maps of the last size of image; safe between
    threads, each with maps of its own.
    """

    dtype = torch.bfloat16

    def __init__(self, net: Network, unit: str | None = None):
        self.scale, self.unit = net.scale, unit or cpu.unit() or "none"
        self._name = type(net).__name__
        with torch.no_grad(), one_thread():
            *steps, tail = unfused(lower(net))
            assert isinstance(tail, Tail)  # of every network
            first = steps[0]
            self._normalise = first if isinstance(first, Normalise) else None
            self._input = first.makes if self._normalise else IMAGE
            convolutions = [step for step in steps if isinstance(step, Convolution)]
            self._steps = [_packed(step, step.source == self._input) for step in convolutions]
            self._steps += _packed_tail(tail)
        self._slots, self._channels = self._share_out()
        self._idle: list[Maps] = []

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        out = torch.empty(n, self.scale * height, self.scale * width, 3, dtype=self.dtype)
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
            filled = step.channels + -step.channels % TAP
            if idle := free.get(filled):
                slots[step.makes] = idle.pop()
            else:
                slots[step.makes] = len(channels)
                channels.append(filled)
            for name in done:
                free.setdefault(channels[slots[name]], []).append(slots[name])
        return slots, channels

    def _take(self, height: int, width: int) -> "Maps":
        try:
            maps = self._idle.pop()
        except IndexError:
            maps = None
        if maps and maps.size == (height, width):
            return maps
        maps = None  # frees the old maps before the new ones are allocated
        return Maps(height, width, self._slots, self._channels, self._steps)


@dataclass(frozen=True)
class _Packed:
    """A convolution whose weights are packed. `taps`: the value that each reads, and where: rows
    and columns from the pixel, and the first of its channels.
    """

    makes: str
    taps: list[tuple[str, int, int, int]]
    weights: Tensor
    bias: Tensor
    channels: int
    epilogue: str = "none"
    gate: str | None = None
    scale: int = 1

    @property
    def reads(self) -> tuple[str, ...]:
        return *(tap[0] for tap in self.taps), *([self.gate] if self.gate else ())


def _packed(step: Convolution, of_image: bool) -> _Packed:
    epilogue = "gate" if step.gate else step.act
    inputs = [(step.source, step.weight)]
    return _sum(step.makes, inputs, step.bias, epilogue, step.gate, of_image)


def _packed_tail(tail: Tail) -> list[_Packed]:
    inputs = [*zip(tail.sources, tail.weights, strict=True)]
    weight, bias = tail.colour_last()
    enlarge = _sum(RESULT, [(SUM, weight)], bias, "shuffle")
    return [_sum(SUM, inputs, tail.bias), replace(enlarge, scale=tail.scale)]


def _sum(
    makes: str,
    inputs: list[tuple[str, Tensor]],
    bias: Tensor,
    epilogue: str = "none",
    gate: str | None = None,
    of_image: bool = False,
) -> _Packed:
    """The sum of convolutions of several inputs, with weights (channels, C, k, k) of odd k."""
    taps, matrices = [], []
    for name, weight in inputs:
        _, channels, k, _ = weight.shape
        for row in range(k):
            if of_image:  # its pixels lie together: a row of the kernel is one tap
                taps.append((name, row - k // 2, -(k // 2), 0))
                matrices.append(weight[:, :, row].permute(2, 1, 0).flatten(0, 1))
                continue
            for column in range(k):
                for first in range(0, channels, TAP):
                    taps.append((name, row - k // 2, column - k // 2, first))
                    matrices.append(weight[:, first : first + TAP, row, column].t())
    packed, wide = cpu.pack(matrices), cpu.pack_bias(bias)
    return _Packed(makes, taps, packed, wide, len(bias), epilogue, gate)


class _Layout:
    """A map (H, W, C) in memory: its first pixel and its length, in elements."""

    def __init__(self, height: int, width: int, channels: int):
        # The 9x9 convolution of an image reads four pixels beyond it, all others one.
        self.border = 4 if channels == 3 else 1
        self.row, self.pixel = (width + self.border) * channels, channels
        before = self.border * (self.row + channels)
        self.first = before + -before % TAP  # where memory is aligned to 64 bytes, so is a tap
        columns = width + -width % GROUP + self.border
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
    ):
        self.size, self._slots = (height, width), slots
        self._layouts = [_Layout(height, width, each) for each in channels]
        # Zeros, as borders stay so and what lies behind them is multiplied by zero.
        self._maps = [zeros(each.elements, dtype=torch.bfloat16) for each in self._layouts]
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
            max(abs(rows) for _, rows, _, _ in step.taps),
            step.epilogue,
            self._place(step.gate) if step.gate else NOWHERE,
            step.scale,
        )

    def _place(self, name: str, rows: int = 0, columns: int = 0, channel: int = 0) -> Place:
        slot = self._slots[name]
        layout = self._layouts[slot]
        element = layout.first + rows * layout.row + columns * layout.pixel + channel
        return Place(self._maps[slot].data_ptr() + 2 * element, layout.row, layout.pixel)
