"""Upscales 4:2:0 frames with their colours converted on the GPU: RGB never reaches the host.

The conversion is one affine map of three values per pixel. Chroma is resampled by Lanczos with
three lobes, as in swscale on the CPU: from where the frame's tag says that it lies, and to the
centre of four pixels.
"""

import logging
import queue
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from espan.errors import EspanError
from espan.execution.cuda_graph import StreamSlot
from espan.execution.runner import SLOTS
from espan.images.pixels import WHITE
from espan.sizes import Size, result_size
from espan.system import memory
from espan.upscaler import Upscaler
from espan.video.colour import Colour, from_rgb
from espan.video.encoding import Encoding
from espan.video.packed import LAYOUTS, Packed
from espan.video.source import Clip
from espan_kernels.convolution import conv2d, depthwise

log = logging.getLogger("espan")

_LOBES = 3


def suits(upscaler: Upscaler, scale: float | Size, clip: Clip, encoding: Encoding) -> bool:
    """Whether frames of the clip can pass through `OnDevice`: a CUDA GPU, 4:2:0 in and out.

    A result that is filtered down to its size is filtered on the host. swscale stretches the chroma
    of odd sizes a little, which a filter of constant weights does not.
    """
    size = clip.width, clip.height
    return (
        upscaler.device.type == "cuda"
        and {clip.format, encoding.format} <= LAYOUTS.keys()
        and result_size(scale, size) == (upscaler.scale * size[0], upscaler.scale * size[1])
        and not any(side % 2 for side in size)
    )


class Colours:
    """Packed frames of a clip to RGB and back, by PyTorch's operators on one device."""

    def __init__(self, clip: Clip, encoding: Encoding, device: torch.device):
        self.clip, self.encoding, self.device = clip, encoding, device
        self._to_rgb = {name: self._affine(*_to_rgb(clip.colour, name)) for name in LAYOUTS}
        self._from_rgb = {
            white: self._affine(*_from_rgb(encoding.colour, encoding.format, white))
            for white in (255, 65535)
        }
        self._enlarge = self._weights(_enlarging(clip.siting)).repeat(2, 1, 1, 1)
        self._reduce = self._weights(_reducing()).repeat(2, 1, 1, 1)

    def rgb(self, packed: Packed) -> Tensor:
        """The frame upright as (3, H, W), uint8, or uint16 if it has more than 8 bits."""
        luma, chroma = (each.float() for each in packed.planes())
        more = depthwise(F.pad(chroma[None], [_LOBES] * 4, "replicate"), self._enlarge)
        x = torch.cat([luma[None, None], F.pixel_shuffle(more, 2)], 1)
        x = conv2d(x, *self._to_rgb[packed.format])
        dtype = _rgb_dtype(packed.format)
        x = x[0].round_().clamp_(0, WHITE[dtype])
        quarters, mirrored = self.clip.turn
        if quarters:  # as floats, since uint16 has few operators
            x = torch.rot90(x, quarters, (1, 2))
        return (x.flip(2) if mirrored else x).to(dtype)

    def packed(self, rgb: Tensor) -> Packed:
        """An image (3, H, W), uint8 or uint16, in the encoder's format and colours."""
        to, layout = self.encoding, LAYOUTS[self.encoding.format]
        x = conv2d(rgb[None].float(), *self._from_rgb[WHITE[rgb.dtype]])
        less = depthwise(F.pad(x[:, 1:], [2 * _LOBES - 1] * 4, "replicate"), self._reduce, stride=2)
        made = Packed.new(to.format, to.width, to.height, self._empty)
        for values, plane in zip((x[0, 0], less[0]), made.planes(), strict=True):
            values.round_().clamp_(0, 2**layout.bits - 1)
            plane.copy_(values if layout.level == 1 else values * layout.level)
        return made

    def _empty(self, shape, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _affine(self, matrix: np.ndarray, offset: np.ndarray) -> tuple[Tensor, Tensor]:
        """Weight and bias of a 1x1 convolution."""
        return self._weights(matrix)[..., None, None], self._weights(offset)

    def _weights(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device, torch.float32)


class OnDevice:
    """Acts as the upscaler of a clip's frames for which `suits` is True; thread-safe.

    Packed frames become packed frames of the encoder's format; RGB frames pass to the upscaler.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        clip: Clip,
        encoding: Encoding,
        lane: Callable[[torch.device], Any] = StreamSlot,
    ):
        self.upscaler, self.clip, self.encoding = upscaler, clip, encoding
        self.device, self.empty = upscaler.device, upscaler._runner.empty
        self._colours = Colours(clip, encoding, self.device)
        # A stream for the copies and conversions of each frame in progress; the network's own
        # streams follow it.
        self._lanes: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(SLOTS):
            self._lanes.put(lane(self.device))

    def __call__(self, image: np.ndarray | Packed, scale: float | Size) -> np.ndarray | Packed:
        """The result of one frame, on the host."""
        if not isinstance(image, Packed):
            return self.upscaler(image, scale)
        lane = self._lanes.get()
        try:
            with lane.current():
                return self._through(lane, image, scale)
        except EspanError:
            raise
        except (RuntimeError, MemoryError) as error:
            memory.raise_if_lost(self.device, error)
            if not memory.ran_out(error):
                raise
        finally:
            self._lanes.put(lane)
        log.warning(
            "%s: out of memory for a frame, whose colours are converted on the CPU", self.device
        )
        colours = Colours(self.clip, self.encoding, torch.device("cpu"))
        return colours.packed(self.upscaler(colours.rgb(image), scale))

    def _through(self, lane, image: Packed, scale: float | Size) -> Packed:
        there = Packed.new(image.format, image.width, image.height, self._colours._empty)
        there.values.copy_(image.values, non_blocking=True)
        made = self._colours.packed(self.upscaler(self._colours.rgb(there), scale))
        back = Packed.new(made.format, made.width, made.height, self.empty)
        back.values.copy_(made.values, non_blocking=True)
        lane.mark()()
        return back


def _to_rgb(colour: Colour, format: str) -> tuple[np.ndarray, np.ndarray]:
    """(matrix, offset) from stored planes to RGB in 0..white."""
    bits, _, level = LAYOUTS[format]
    matrix, offset = from_rgb(colour, bits)
    inverse = WHITE[_rgb_dtype(format)] * np.linalg.inv(matrix)
    return inverse / level, -inverse @ offset


def _from_rgb(colour: Colour, format: str, white: int) -> tuple[np.ndarray, np.ndarray]:
    """(matrix, offset) from RGB in 0..white to the levels of planes."""
    matrix, offset = from_rgb(colour, LAYOUTS[format].bits)
    return matrix / white, offset


def _rgb_dtype(format: str) -> torch.dtype:
    return torch.uint8 if LAYOUTS[format].bits == 8 else torch.uint16


def _enlarging(siting: tuple[float, float]) -> np.ndarray:
    """Filters (4, 1, 7, 7) around a sample, for the pixels of `F.pixel_shuffle`: 2 x 2 of them."""
    taps = np.arange(-_LOBES, _LOBES + 1)
    across, down = ([_lanczos((pixel - at) / 2 - taps) for pixel in (0, 1)] for at in siting)
    return np.stack([np.outer(y, x) for y in down for x in across])[:, None]


def _reducing() -> np.ndarray:
    """The filter (1, 1, 12, 12) around the centre of 2 x 2 pixels."""
    taps = _lanczos((np.arange(4 * _LOBES) - (2 * _LOBES - 0.5)) / 2)
    return np.outer(taps, taps)[None, None]


def _lanczos(distances: np.ndarray) -> np.ndarray:
    """Weights at these distances, in samples, with a sum of 1."""
    weights = np.sinc(distances) * np.sinc(distances / _LOBES) * (np.abs(distances) < _LOBES)
    return weights / weights.sum()
