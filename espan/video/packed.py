"""4:2:0 frames in one block of memory, as they cross the bus to a GPU: 1.5 values per pixel."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from espan.system.pinned import Empty


class Layout(NamedTuple):
    """How a pixel format stores its values: `level` is the stored value of one level.

    paired: Cb and Cr take turns in one plane.
    """

    bits: int
    paired: bool = False
    level: int = 1


LAYOUTS = {
    "yuv420p": Layout(8),
    "yuvj420p": Layout(8),
    "nv12": Layout(8, paired=True),
    "yuv420p10le": Layout(10),
    "p010le": Layout(10, paired=True, level=64),
}


@dataclass(frozen=True)
class Packed:
    """The planes of a frame of even sides, without padding, on the host or a GPU.

    format: one of LAYOUTS. values: uint8, or uint16 for more than 8 bits; luma, then chroma.
    """

    format: str
    width: int
    height: int
    values: Tensor

    @classmethod
    def new(cls, format: str, width: int, height: int, empty: Empty) -> "Packed":
        """Uninitialised planes in memory from `empty`."""
        dtype = torch.uint8 if LAYOUTS[format].bits == 8 else torch.uint16
        return cls(format, width, height, empty((height * width * 3 // 2,), dtype))

    @classmethod
    def of(cls, frame, empty: Empty) -> "Packed":
        """A copy of a frame whose format is one of LAYOUTS."""
        packed = cls.new(frame.format.name, frame.width, frame.height, empty)
        for theirs, ours in packed._beside(frame):
            ours[:] = theirs
        return packed

    def frame(self):
        """A copy as PyAV's frame, without tags. The values are on the host."""
        frame = av.VideoFrame(self.width, self.height, self.format)
        for theirs, ours in self._beside(frame):
            theirs[:] = ours
        return frame

    def planes(self) -> tuple[Tensor, Tensor]:
        """Views of the values: luma (H, W), and Cb and Cr (2, H/2, W/2)."""
        height, width = self.height, self.width
        luma, chroma = self.values.split([height * width, height * width // 2])
        if LAYOUTS[self.format].paired:
            chroma = chroma.view(height // 2, width // 2, 2).permute(2, 0, 1)
        else:
            chroma = chroma.view(2, height // 2, width // 2)
        return luma.view(height, width), chroma

    def _beside(self, frame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Views of the rows of each plane, as stored: (the frame's, this one's)."""
        values = self.values.numpy()
        luma, chroma = np.split(values, [self.height * self.width])
        ours = [luma, *np.split(chroma, len(frame.planes) - 1)]
        for plane, values in zip(frame.planes, ours, strict=True):
            rows = values.reshape(plane.height, -1)
            theirs = np.frombuffer(plane, rows.dtype).reshape(plane.height, -1)
            yield theirs[:, : rows.shape[1]], rows
