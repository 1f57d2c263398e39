"""How a frame must be turned to stand upright: its display matrix, applied."""

import logging
import struct
from typing import NamedTuple

import numpy as np

log = logging.getLogger("espan")


class Turn(NamedTuple):
    """Quarter turns, anticlockwise, and then whether left and right are exchanged."""

    quarters: int
    mirrored: bool

    @classmethod
    def of(cls, frame) -> "Turn":
        """What the frame's display matrix asks for; angles between the quarters are left out."""
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls(0, False)
        # Fixed point; a point (x, y) of the frame is shown at (a x + c y, b x + d y).
        a, b, _, c, d, *_ = (each / 65536 for each in struct.unpack("=9i", bytes(matrix)))
        mirrored = a * d - b * c < 0
        if mirrored:
            a, c = -a, -c
        # y points down: what goes from x to y by a positive angle turns clockwise.
        angle = -np.degrees(np.arctan2(b, a))
        quarters = round(angle / 90)
        if abs(angle - 90 * quarters) > 1:
            log.warning("frames stand at %.0f degrees, which is left as it is", angle)
            return cls(0, False)
        return cls(quarters % 4, mirrored)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, C) upright."""
        if self == (0, False):
            return picture
        upright = np.rot90(picture, self.quarters)
        return np.ascontiguousarray(upright[:, ::-1] if self.mirrored else upright)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height upright."""
        return (height, width) if self.quarters % 2 else (width, height)
