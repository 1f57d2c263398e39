"""Converts PIL images to arrays and back, sharing memory where possible.

Pillow stores RGB in four bytes per pixel, in memory that its Arrow interface exposes.
"""

import ctypes
from typing import Any

import numpy as np
import PIL
from PIL import Image

# Pillow before 13 crashes if the memory of an image that it exports came from `frombuffer`.
HAS_ARROW = int(PIL.__version__.split(".")[0]) >= 13
# 16-bit modes.
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
    """Memory of an image, for numpy to read; `owner` keeps it alive."""

    def __init__(self, owner: Any, address: int, shape: tuple[int, ...]):
        self.owner = owner
        # False means writable: PyTorch rejects read-only memory. The callers only read.
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": shape,
            "data": (address, False),
        }


# 8-bit modes that share memory, and their bytes per pixel.
_SHARED = {"L": 1, "RGB": 4, "RGBA": 4}


def pixels(image: Image.Image) -> np.ndarray:
    """Returns (H, W) or (H, W, C), in the image's own memory if possible; do not write to it."""
    size = _SHARED.get(image.mode, 0)
    if not (HAS_ARROW and size and image.width and image.height):
        return np.asarray(image)
    try:
        _, array = image.__arrow_c_array__()
    except ValueError:  # large images are stored in several blocks
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
    """Converts an array (H, W, C) to an image, which takes over its memory (Pillow 13 or later).

    mode: L, LA, RGB (if C = 4, the last channel is opaque), RGBA or a 16-bit mode. LA and RGB with
    C = 3 are copied, because Pillow stores them in four bytes per pixel.
    """
    size = array.shape[1::-1]
    if mode == "I;16B":
        return Image.frombytes(mode, size, array.astype(">u2").tobytes())
    if array.shape[2] in (2, 3):
        return Image.fromarray(array)
    raw = "RGBX" if mode == "RGB" else mode
    if not HAS_ARROW:
        return Image.frombytes(mode, size, array.tobytes(), "raw", raw)
    shown = Image.frombuffer(raw, size, array, "raw", raw, 0, 1)
    return Image.fromarrow(shown, mode, size)
