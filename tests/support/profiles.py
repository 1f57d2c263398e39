"""A CMYK colour profile for tests: 16 corners, each ink subtracts its colour."""

import itertools
import struct

import numpy as np
from skimage.color import rgb2lab


def cmyk(name: str = "inks of a test") -> bytes:
    """A version 2 ICC profile from CMYK to Lab."""
    corners = np.array(list(itertools.product((0, 1), repeat=4)), float)
    lab = rgb2lab(((1 - corners[:, :3]) * (1 - corners[:, 3:]))[None])[0]
    values = np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], 1)
    straight = bytes(range(256))
    one = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + one + 4 * straight
    lut += values.round().clip(0, 255).astype(np.uint8).tobytes() + 3 * straight
    said = name.encode() + b"\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(said)) + said + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": description, b"cprt": b"text" + bytes(4) + b"none\0"}
    tags |= {b"wtpt": white, b"A2B0": lut}
    at, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", at + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = at + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + data
