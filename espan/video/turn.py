"""Rotates frames upright, as their display matrix says."""

import logging
import struct
from typing import NamedTuple

import numpy as np

log = logging.getLogger("espan")


class Turn(NamedTuple):
    """Anticlockwise quarter turns, followed by a horizontal flip if `mirrored`."""

    quarters: int
    mirrored: bool

    @classmethod
    def of(cls, frame) -> "Turn":
        """The turn in the frame's display matrix; other angles than quarter turns are ignored."""
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls(0, False)
        # Fixed point; a point (x, y) of the frame is shown at (a x + c y, b x + d y).
        a, b, _, c, d, *_ = (each / 65536 for each in struct.unpack("=9i", bytes(matrix)))
        mirrored = a * d - b * c < 0
        if mirrored:
            a, c = -a, -c
        # y points down, so a positive angle from x to y turns clockwise.
        angle = -np.degrees(np.arctan2(b, a))
        quarters = round(angle / 90)
        if abs(angle - 90 * quarters) > 1:
            log.warning("frames are rotated by %.0f degrees; only quarter turns are undone", angle)
            return cls(0, False)
        return cls(quarters % 4, mirrored)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The image (H, W, C) upright."""
        if self == (0, False):
            return image
        upright = np.rot90(image, self.quarters)
        return np.ascontiguousarray(upright[:, ::-1] if self.mirrored else upright)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height upright."""
        return (height, width) if self.quarters % 2 else (width, height)
