"""The CPU backend: few passes over the feature maps, in reused memory.

PyTorch allocates memory for every result, and faults in large results page by page: up to a third
of the time (docs/performance.md). Here a convolution computes one strip of rows at a time, small
enough for the allocator to keep its memory, and the activation writes the strip into a feature
map. The network reuses a few feature maps for all its layers and from image to image.
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
from espan.backends.program import IMAGE, Convolution, Normalise, Step, Tail, released, unfused
from espan.networks.network import Network
from espan.system.devices import one_thread

# Bytes per channel of a strip (measured: docs/performance.md), and pixels that a gate processes at
# a time, so that its passes stay in the caches.
STRIP_BYTES, GATE_PIXELS = 1 << 18, 1 << 13
# Gated feature maps are stored times this, which saves a pass; the weights of the layers that read
# them undo it exactly.
GATED = -2.0


class CpuNetwork:
    """A backend: `CpuNetwork(net)(x)` is `net(x)`, x (N, 3, H, W) -> (N, 3, scale*H, scale*W).

    net: a folded ESPAN, SPAN or SPANF on the CPU; its weights are copied. The result is in
    channels_last memory and has no gradient. Keeps the feature maps of the last image size.
    Thread-safe: each thread has its own feature maps.
    """

    def __init__(self, net: Network):
        self.scale, self.dtype = net.scale, next(net.parameters()).dtype
        self._name = type(net).__name__
        with torch.no_grad(), one_thread():
            *steps, tail = unfused(lower(net))
            assert isinstance(tail, Tail)  # the last step of every network
            gated = {step.makes for step in steps if isinstance(step, Convolution) and step.gate}
            self._times = dict.fromkeys(gated, GATED)
            self.steps = [self._weighted(step) for step in steps]
            self.tail = _prepare_tail(tail, [self._times.get(name, 1.0) for name in tail.reads])
        self._channels = {IMAGE: 3} | {step.makes: step.channels for step in steps}
        self._released = released([*steps, tail])
        self._most = self._most_live()
        self._idle: list[FeatureMaps] = []

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        s = self.scale
        out = torch.empty(n, s * height, s * width, 3, dtype=self.dtype)
        if out.numel():
            maps = self._take(height, width)
            for image, result in zip(x, out, strict=True):
                self._run(image[None], result, maps)
            self._idle.append(maps)
        return out.permute(0, 3, 1, 2)

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes that a call allocates for n images (3, H, W), beyond the feature maps it keeps."""
        maps = FeatureMaps(height, width, self.dtype)
        kept = sum(maps.shape(channels).numel() * count for channels, count in self._most.items())
        # A strip before and after the activation.
        enlarged = 3 * self.scale**2
        widest = max(*self._most, enlarged)
        scratch = 2 * widest * width * max(hi - lo for lo, hi in maps.strips)
        values = kept + scratch + n * enlarged * height * width
        idle = sum(one.bytes for one in self._idle[-1:])
        return max(0, values * self.dtype.itemsize - idle)

    def explain(self) -> str:
        return f"{self._name} by PyTorch's convolutions in strips of rows, in {self.dtype}"

    def bind(self, pixels: Tensor) -> Work:
        return bound(self, self.dtype, pixels)

    def _most_live(self) -> Counter[int]:
        """{channels: most feature maps with so many channels that are live together}."""
        live, most = Counter({3: 1}), Counter({3: 1})
        made = [*(step.channels for step in self.steps), self.tail.channels]
        for channels, done in zip(made, self._released, strict=True):
            live[channels] += 1
            most |= live
            live -= Counter(self._channels[name] for name in done)
        return most

    def _take(self, height: int, width: int) -> "FeatureMaps":
        try:
            maps = self._idle.pop()
        except IndexError:
            maps = None
        return (
            maps
            if maps and maps.size == (height, width)
            else FeatureMaps(height, width, self.dtype)
        )

    def _run(self, x: Tensor, out: Tensor, maps: "FeatureMaps") -> None:
        values = {IMAGE: maps.of_image(x)}
        for step, done in zip(self.steps, self._released, strict=False):
            if isinstance(step, Normalise):
                values[step.makes] = maps.of_image(step.eager(x))
            else:
                values[step.makes] = made = maps.take(step.channels)
                self._conv(step, values, made, maps)
            for name in done:
                maps.give(values.pop(name))
        inputs = [values[name] for name in self.tail.reads]
        total = maps.take(self.tail.channels)
        self.tail.sum_inputs(inputs, total, maps)
        self.tail.enlarge(total, out, maps)
        for one in (*values.values(), total):
            maps.give(one)

    def _conv(
        self, step: Convolution, values: dict[str, Tensor], out: Tensor, maps: "FeatureMaps"
    ) -> None:
        for rows in maps.strips:
            y = maps.convolve(values[step.source], rows, step.weight, step.bias)
            made = maps.rows(out, rows)
            if step.gate:
                times, gate = self._times.get(step.gate, 1.0), maps.rows(values[step.gate], rows)
                for part, before, after in maps.gate_parts(y, gate, made):
                    # With t = y + x: GATED * t * (sigmoid(y) - 1/2) = t - 2 t sigmoid(y).
                    torch.add(part, before, alpha=1 / times, out=after)
                    torch.addcmul(after, after, part.sigmoid_(), value=GATED, out=after)
            elif step.act == "silu":
                torch.ops.aten.silu.out(y, out=made)
            else:
                made.copy_(y)

    def _weighted(self, step: Step) -> Normalise | Convolution:
        """The step with weights that undo the factor of its input."""
        if isinstance(step, Normalise):
            return step
        assert isinstance(step, Convolution)  # `unfused` leaves no blocks
        return replace(step, weight=_by_pixel(step.weight / self._times.get(step.source, 1.0)))


def _by_pixel(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _prepare_tail(tail: Tail, times: list[float]) -> "_Tail":
    first, *others = [weight / by for weight, by in zip(tail.weights, times, strict=True)]
    up_weight, up_bias = tail.colour_last()
    return _Tail(
        tail.reads,
        tail.scale,
        _by_pixel(first),
        tail.bias,
        [weight[:, :, 0, 0].t().contiguous() for weight in others],
        _by_pixel(up_weight),
        up_bias,
    )


@dataclass(frozen=True)
class _Tail:
    """The tail: a 3x3 convolution, 1x1 convolutions as matrix products (in, out), the upsampler."""

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

    def sum_inputs(self, inputs: list[Tensor], total: Tensor, maps: "FeatureMaps") -> None:
        first, *others = inputs
        for rows in maps.strips:
            y = maps.convolve(first, rows, self.weight, self.bias)
            pixels = y.view(-1, self.channels)
            for x, matrix in zip(others, self.matrices, strict=True):
                pixels.addmm_(maps.rows(x, rows).view(-1, len(matrix)), matrix)
            maps.rows(total, rows).copy_(y)

    def enlarge(self, total: Tensor, out: Tensor, maps: "FeatureMaps") -> None:
        """The upsampler; its pixel shuffle moves runs of `scale` pixels in large words."""
        size = 3 * self.scale * out.element_size()
        word = next(w for w in (torch.int64, torch.int32, torch.int16) if size % w.itemsize == 0)
        height, width = maps.size
        out = out.view(height, self.scale, width, -1).view(word).transpose(1, 2)
        for lo, hi in maps.strips:
            y = maps.convolve(total, (lo, hi), self.up_weight, self.up_bias)
            out[lo:hi].copy_(y.view(hi - lo, width, self.scale, -1).view(word))


class FeatureMaps:
    """A pool of feature maps for one image size, (border + H + border, W, C), zero borders."""

    def __init__(self, height: int, width: int, dtype: torch.dtype):
        self.size, self.dtype = (height, width), dtype
        count = min(height, max(1, round(height * width * dtype.itemsize / STRIP_BYTES)))
        edges = [height * i // count for i in range(count + 1)]
        self.strips = [*pairwise(edges)]
        self.bytes = 0  # of all feature maps
        self._free: dict[int, list[Tensor]] = {}

    def take(self, channels: int) -> Tensor:
        """An uninitialised feature map with zero borders: 4 rows for the 9x9 head, else 1."""
        free = self._free.setdefault(channels, [])
        if free:
            return free.pop()
        made = torch.empty(self.shape(channels), dtype=self.dtype)
        border = (len(made) - self.size[0]) // 2
        made[:border] = made[-border:] = 0
        self.bytes += made.nbytes
        return made

    def shape(self, channels: int) -> torch.Size:
        """Shape of a feature map with its borders."""
        (height, width), border = self.size, 4 if channels == 3 else 1
        return torch.Size((height + 2 * border, width, channels))

    def give(self, made: Tensor) -> None:
        self._free[made.shape[2]].append(made)

    def of_image(self, x: Tensor) -> Tensor:
        """The feature map of an image (1, 3, H, W)."""
        made = self.take(3)
        self.rows(made, (0, self.size[0])).copy_(x[0].permute(1, 2, 0))
        return made

    def rows(self, made: Tensor, rows: tuple[int, int], pad: int = 0) -> Tensor:
        """Rows lo..hi plus `pad` on both sides, (rows, W, C)."""
        first = (len(made) - self.size[0]) // 2
        return made[first + rows[0] - pad : first + rows[1] + pad]

    def gate_parts(self, *strips: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Splits strips (rows, W, C) into matching parts of a few rows."""
        rows = max(1, GATE_PIXELS // self.size[1])
        return zip(*(strip.split(rows) for strip in strips), strict=True)

    def convolve(self, x: Tensor, rows: tuple[int, int], weight: Tensor, bias: Tensor) -> Tensor:
        """Rows lo..hi of the convolution of a feature map, (rows, W, C), in new memory."""
        pad = weight.shape[-1] // 2
        strip = self.rows(x, rows, pad).permute(2, 0, 1)[None]
        return F.conv2d(strip, weight, bias, padding=(0, pad))[0].permute(1, 2, 0)
