"""Images of 16-bit colour, for which PIL has no mode."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from espan.errors import InputError

MODES = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}


@dataclass(eq=False)  # == of arrays gives an array
class Image16:
    """An image of 16-bit colour or transparency, read from a file or written to one.

    Args:
        pixels: (H, W, C) uint16 in 0..65535, C = 2 grey and alpha, 3 RGB, 4 RGBA; `np.asarray`
            of the image returns them too.
        info: icc_profile, exif and dpi, as in PIL's `info`.

    Raises:
        InputError: `pixels` has another shape or dtype.
    """

    pixels: NDArray[np.uint16]
    info: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.pixels), getattr(self.pixels, "dtype", None)
        if dtype != np.uint16 or len(shape) != 3 or shape[2] not in MODES:
            raise InputError(f"pixels: expected (H, W, 2..4) uint16, got {shape} {dtype}")

    @property
    def mode(self) -> str:
        """ "LA;16", "RGB;16" or "RGBA;16"."""
        return MODES[self.pixels.shape[2]]

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, as in PIL."""
        return self.width, self.height

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype, copy=copy)

    def convert(self, mode: str) -> Image.Image:
        """Converts to 8 bits, rounding each value.

        Args:
            mode: the PIL mode of the result, such as "RGB".

        Returns:
            A PIL image with the same `info`.
        """
        # 257 * 255 is 65535. In integers, because floats would take four times the image's memory.
        eight = ((self.pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        image = Image.fromarray(eight).convert(mode)
        image.info = dict(self.info)
        return image
