"""The pixels of PIL images as arrays, and arrays as PIL images: shared where Pillow can share them.

Pillow keeps RGB in four bytes a pixel, in memory that its Arrow interface shows.
"""

import ctypes
from typing import Any

import numpy as np
from PIL import Image

# Modes of 16 bits.
DEEP = ("I;16", "I;16B")


class _ArrowArray(ctypes.Structure):
    """The beginning of Arrow's C data interface for an array."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("length", "nulls", "offset", "buffers", "children")),
        ("buffer", ctypes.POINTER(ctypes.c_void_p)),
        ("child", ctypes.POINTER(ctypes.c_void_p)),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


class _Shared:
    """Memory of an image, for numpy to read; `owner` is what keeps it."""

    def __init__(self, owner: Any, address: int, shape: tuple[int, ...]):
        self.owner = owner
        # False: it can be written to. PyTorch does not take what cannot; nobody does write.
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": shape,
            "data": (address, False),
        }


# Modes of 8 bits whose memory is shown, and the bytes of a pixel there.
_SHOWN = {"L": 1, "RGB": 4, "RGBA": 4}


def pixels(image: Image.Image) -> np.ndarray:
    """(H, W) or (H, W, C), not to be written to; where it can be, the image's own memory."""
    size = _SHOWN.get(image.mode, 0)
    if not (size and image.width and image.height):
        return np.asarray(image)
    try:
        _, array = image.__arrow_c_array__()
    except ValueError:  # large images lie in several pieces
        return np.asarray(image)
    values = _array_at(_pointer(array, b"arrow_array"))
    start = size * values.offset
    if size > 1:
        values = _array_at(values.child[0])
        start += values.offset
    shape = (image.height, image.width, size)[: 3 if size > 1 else 2]
    shared = np.asarray(_Shared((image, array), values.buffer[1] + start, shape))
    return shared[:, :, :3] if image.mode == "RGB" else shared


def _array_at(address: int | None) -> _ArrowArray:
    return ctypes.cast(ctypes.c_void_p(address), ctypes.POINTER(_ArrowArray)).contents


def image(array: np.ndarray, mode: str) -> Image.Image:
    """The image whose pixels are these, (H, W, C), in memory that is the image's from now on.

    mode: L, LA, RGB (of C = 4 the last is opaque), RGBA or of 16 bits. LA and RGB of C = 3 are
    copied: Pillow keeps them as four bytes a pixel.
    """
    size = array.shape[1::-1]
    if mode == "I;16B":
        return Image.frombytes(mode, size, array.astype(">u2").tobytes())
    if array.shape[2] in (2, 3):
        return Image.fromarray(array)
    raw = "RGBX" if mode == "RGB" else mode
    shown = Image.frombuffer(raw, size, array, "raw", raw, 0, 1)
    return Image.fromarrow(shown, mode, size)
