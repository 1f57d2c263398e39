"""HEIC and HEIF, the formats of many phones, through the optional pillow-heif, imported lazily."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from espan.errors import InputError
from espan.images.image16 import Image16
from espan.system.extras import extra
from espan.system.paths import reason

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1"}

# libheif's errors for intact files that it cannot decode.
_UNKNOWN = re.compile(r"^unsupported|not supported|no (suitable|decoding) ", re.IGNORECASE)


def is_heif(path: Path | BytesIO) -> bool:
    """Whether the content is HEIF. It begins with a list of brands, as AVIF with other brands."""
    if isinstance(path, BytesIO):
        head = path.getvalue()[:64]
    else:
        with path.open("rb") as file:
            head = file.read(64)
    if head[4:8] != b"ftyp":
        return False
    # Major brand, version, compatible brands.
    brands = {head[at : at + 4] for at in (8, *range(16, head[3], 4))}
    return bool(brands & _BRANDS) and not brands & {b"avif", b"avis"}


def read(path: Path | BytesIO, check: Callable[[tuple[int, int]], None]) -> Image.Image | Image16:
    """Reads the main image of a file, upright; scales 10 and 12 bits to 16.

    Calls `check(size)` before decoding.
    """
    pillow_heif = extra("pillow_heif", "HEIC", "image")
    try:
        heif = pillow_heif.open_heif(path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        check(heif.size)
        info = dict(heif.info)
        pillow_heif.set_orientation(info)  # libheif has already rotated the pixels
        pixels = np.asarray(heif)
    except RuntimeError as error:
        if _UNKNOWN.search(str(error)):
            raise InputError(f"this kind of HEIF is not supported: {reason(error)}") from error
        raise ValueError(str(error)) from error
    if pixels.dtype != np.uint8:
        white = 2 ** info["bit_depth"] - 1
        pixels = ((pixels.astype(np.uint32) * 65535 + white // 2) // white).astype(np.uint16)
    deep = pixels.dtype == np.uint16 and pixels.ndim == 3
    image = Image16(pixels) if deep else Image.fromarray(pixels)
    image.info = info
    return image
