"""Colour of 16 bits: PIL has no mode for it, so it has a class of its own."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from espan.errors import InputError

MODES = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}


@dataclass(eq=False)  # of arrays, == is no single answer
class Image16:
    """A picture of 16-bit colour or transparency, as read from a file and written to one.

    pixels: (H, W, C) uint16, C = 2 grey + alpha, 3 RGB, 4 RGBA; `np.asarray` gives them too.
    info: icc_profile, exif and dpi as PIL has them. `size`, `width`, `height` and `mode`
    ("LA;16", "RGB;16", "RGBA;16") are named as PIL's.
    """

    pixels: np.ndarray
    info: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.pixels), getattr(self.pixels, "dtype", None)
        if dtype != np.uint16 or len(shape) != 3 or shape[2] not in MODES:
            raise InputError(f"pixels: expected (H, W, 2..4) uint16, got {shape} {dtype}")

    @property
    def mode(self) -> str:
        return MODES[self.pixels.shape[2]]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.pixels, dtype, copy=copy)

    def convert(self, mode: str) -> Image.Image:
        """A PIL image of 8 bits in `mode`, rounded."""
        # 257 * 255 is 65535. In whole numbers, as floats would be four times the picture.
        eight = ((self.pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        image = Image.fromarray(eight).convert(mode)
        image.info = dict(self.info)
        return image
