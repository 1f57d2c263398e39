"""A folded network on a CPU: few passes over its maps, in memory that is used again.

PyTorch takes memory anew for every result, and large results page by page from the system: up to
a third of the time (docs/performance.md). Here a convolution makes a band of rows at a time, small
enough for the allocator to keep its memory, and its activation writes the band into a map; a few
maps serve the network by turns, from one picture to the next.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from espan.backends.base import Work, bound
from espan.backends.lowering import lower
from espan.backends.program import PICTURE, Convolution, Normalise, Step, Tail, released, unfused
from espan.networks.network import Network
from espan.system.devices import one_thread

# Bytes of a channel that a convolution makes at a time (measured: docs/performance.md), and pixels
# that a gate takes, so that its passes find them in the caches.
BAND, STRIP = 1 << 18, 1 << 13
# A gated map is kept times this, which its readers' weights undo exactly: it takes a pass less.
GATED = -2.0


class CpuNetwork:
    """A backend: `CpuNetwork(net)(x)` is `net(x)`, x (N, 3, H, W) -> (N, 3, scale*H, scale*W).

    net: a folded ESPAN, SPAN or SPANF on the CPU; its weights are copied. The result lies in
    channels_last memory and has no gradient. Keeps the maps of the last size of picture; safe
    between threads, each with maps of its own.
    """

    def __init__(self, net: Network):
        self.scale, self.dtype = net.scale, next(net.parameters()).dtype
        self._name = type(net).__name__
        with torch.no_grad(), one_thread():
            *steps, tail = unfused(lower(net))
            assert isinstance(tail, Tail)  # of every network
            gated = {step.makes for step in steps if isinstance(step, Convolution) and step.gate}
            self._times = dict.fromkeys(gated, GATED)
            self.steps = [self._weighted(step) for step in steps]
            self.tail = _prepare_tail(tail, [self._times.get(name, 1.0) for name in tail.reads])
        self._channels = {PICTURE: 3} | {step.makes: step.channels for step in steps}
        self._released = released([*steps, tail])
        self._most = self._at_once()
        self._idle: list[Maps] = []

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        s = self.scale
        out = torch.empty(n, s * height, s * width, 3, dtype=self.dtype)
        if out.numel():
            maps = self._take(height, width)
            for picture, result in zip(x, out, strict=True):
                self._run(picture[None], result, maps)
            self._idle.append(maps)
        return out.permute(0, 3, 1, 2)

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes that it will take for n pictures (3, H, W), beside what it keeps from before."""
        maps = Maps(height, width, self.dtype)
        kept = sum(maps.shape(channels).numel() * count for channels, count in self._most.items())
        # A convolution's band and what is made of it.
        enlarged = 3 * self.scale**2
        widest = max(*self._most, enlarged)
        scratch = 2 * widest * width * max(hi - lo for lo, hi in maps.bands)
        values = kept + scratch + n * enlarged * height * width
        idle = sum(one.bytes for one in self._idle[-1:])
        return max(0, values * self.dtype.itemsize - idle)

    def explain(self) -> str:
        return f"{self._name} by PyTorch's convolutions of bands of rows, in {self.dtype}"

    def bind(self, pixels: Tensor) -> Work:
        return bound(self, self.dtype, pixels)

    def _at_once(self) -> Counter[int]:
        """How many maps of so many channels there are at most."""
        live, most = Counter({3: 1}), Counter({3: 1})
        made = [*(step.channels for step in self.steps), self.tail.channels]
        for channels, done in zip(made, self._released, strict=True):
            live[channels] += 1
            most |= live
            live -= Counter(self._channels[name] for name in done)
        return most

    def _take(self, height: int, width: int) -> "Maps":
        try:
            maps = self._idle.pop()
        except IndexError:
            maps = None
        return maps if maps and maps.size == (height, width) else Maps(height, width, self.dtype)

    def _run(self, x: Tensor, out: Tensor, maps: "Maps") -> None:
        values = {PICTURE: maps.picture(x)}
        for step, done in zip(self.steps, self._released, strict=False):
            if isinstance(step, Normalise):
                values[step.makes] = maps.picture(step.eager(x))
            else:
                values[step.makes] = made = maps.take(step.channels)
                self._conv(step, values, made, maps)
            for name in done:
                maps.give(values.pop(name))
        inputs = [values[name] for name in self.tail.reads]
        total = maps.take(self.tail.channels)
        self.tail.add_up(inputs, total, maps)
        self.tail.enlarge(total, out, maps)
        for one in (*values.values(), total):
            maps.give(one)

    def _conv(
        self, step: Convolution, values: dict[str, Tensor], out: Tensor, maps: "Maps"
    ) -> None:
        for rows in maps.bands:
            y = maps.convolve(values[step.source], rows, step.weight, step.bias)
            made = maps.rows(out, rows)
            if step.gate:
                times, gate = self._times.get(step.gate, 1.0), maps.rows(values[step.gate], rows)
                for part, before, after in maps.strips(y, gate, made):
                    # t (sigmoid(y) - 1/2) times GATED = -2, for t = y + x: t - 2 t sigmoid(y).
                    torch.add(part, before, alpha=1 / times, out=after)
                    torch.addcmul(after, after, part.sigmoid_(), value=GATED, out=after)
            elif step.act == "silu":
                torch.ops.aten.silu.out(y, out=made)
            else:
                made.copy_(y)

    def _weighted(self, step: Step) -> Normalise | Convolution:
        """The step for inputs that are kept times a number."""
        if isinstance(step, Normalise):
            return step
        assert isinstance(step, Convolution)  # no block is left
        return replace(step, weight=_by_pixel(step.weight / self._times.get(step.source, 1.0)))


def _by_pixel(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _prepare_tail(tail: Tail, times: list[float]) -> "_Tail":
    first, *others = [weight / by for weight, by in zip(tail.weights, times, strict=True)]
    # Channels (colour, row, column) of an enlarged pixel in the order of memory: colour last.
    order = torch.arange(3 * tail.scale**2).view(3, -1).t().flatten()
    return _Tail(
        tail.reads,
        tail.scale,
        _by_pixel(first),
        tail.bias,
        [weight[:, :, 0, 0].t().contiguous() for weight in others],
        _by_pixel(tail.up_weight[order]),
        tail.up_bias[order],
    )


@dataclass(frozen=True)
class _Tail:
    """The tail: one convolution, 1x1 ones as matrix products (in, out), and the enlarging one."""

    reads: tuple[str, ...]
    scale: int
    weight: Tensor
    bias: Tensor
    matrices: list[Tensor]
    up_weight: Tensor
    up_bias: Tensor

    @property
    def channels(self) -> int:
        return len(self.bias)

    def add_up(self, inputs: list[Tensor], total: Tensor, maps: "Maps") -> None:
        first, *others = inputs
        for rows in maps.bands:
            y = maps.convolve(first, rows, self.weight, self.bias)
            pixels = y.view(-1, self.channels)
            for x, matrix in zip(others, self.matrices, strict=True):
                pixels.addmm_(maps.rows(x, rows).view(-1, len(matrix)), matrix)
            maps.rows(total, rows).copy_(y)

    def enlarge(self, total: Tensor, out: Tensor, maps: "Maps") -> None:
        """The pixel shuffle moves rows of `scale` pixels, which lie together, in large words."""
        size = 3 * self.scale * out.element_size()
        word = next(w for w in (torch.int64, torch.int32, torch.int16) if size % w.itemsize == 0)
        height, width = maps.size
        out = out.view(height, self.scale, width, -1).view(word).transpose(1, 2)
        for lo, hi in maps.bands:
            y = maps.convolve(total, (lo, hi), self.up_weight, self.up_bias)
            out[lo:hi].copy_(y.view(hi - lo, width, self.scale, -1).view(word))


class Maps:
    """Memory for the maps of a picture, (border + H + border, W, C) with borders of zeros."""

    def __init__(self, height: int, width: int, dtype: torch.dtype):
        self.size, self.dtype = (height, width), dtype
        count = min(height, max(1, round(height * width * dtype.itemsize / BAND)))
        edges = [height * i // count for i in range(count + 1)]
        self.bands = [*pairwise(edges)]
        self.bytes = 0  # of all its maps
        self._free: dict[int, list[Tensor]] = {}

    def take(self, channels: int) -> Tensor:
        """A map whose rows hold anything; the 9x9 head reads pictures with a border of 4."""
        free = self._free.setdefault(channels, [])
        if free:
            return free.pop()
        made = torch.empty(self.shape(channels), dtype=self.dtype)
        border = (len(made) - self.size[0]) // 2
        made[:border] = made[-border:] = 0
        self.bytes += made.nbytes
        return made

    def shape(self, channels: int) -> torch.Size:
        """Of a map, its borders counted in."""
        (height, width), border = self.size, 4 if channels == 3 else 1
        return torch.Size((height + 2 * border, width, channels))

    def give(self, made: Tensor) -> None:
        self._free[made.shape[2]].append(made)

    def picture(self, x: Tensor) -> Tensor:
        """The map of a picture (1, 3, H, W)."""
        made = self.take(3)
        self.rows(made, (0, self.size[0])).copy_(x[0].permute(1, 2, 0))
        return made

    def rows(self, made: Tensor, rows: tuple[int, int], pad: int = 0) -> Tensor:
        """Rows lo..hi and `pad` more on both sides, (rows, W, C)."""
        first = (len(made) - self.size[0]) // 2
        return made[first + rows[0] - pad : first + rows[1] + pad]

    def strips(self, *bands: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Bands (rows, W, C) in parts of a few rows, side by side."""
        rows = max(1, STRIP // self.size[1])
        return zip(*(band.split(rows) for band in bands), strict=True)

    def convolve(self, x: Tensor, rows: tuple[int, int], weight: Tensor, bias: Tensor) -> Tensor:
        """Rows lo..hi of the convolution of a map, (rows, W, C), in memory of their own."""
        pad = weight.shape[-1] // 2
        band = self.rows(x, rows, pad).permute(2, 0, 1)[None]
        return F.conv2d(band, weight, bias, padding=(0, pad))[0].permute(1, 2, 0)
