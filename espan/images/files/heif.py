"""HEIC and HEIF, what phones take pictures in, by pillow-heif: an extra, loaded when one is met."""

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


# What libheif says of files that are whole and that it does not know how to decode.
_UNKNOWN = re.compile(r"^unsupported|not supported|no (suitable|decoding) ", re.IGNORECASE)


def is_heif(path: Path | BytesIO) -> bool:
    """By its content: a box of brands comes first. AVIF has the same, and names itself in it."""
    if isinstance(path, BytesIO):
        head = path.getvalue()[:64]
    else:
        with path.open("rb") as file:
            head = file.read(64)
    if head[4:8] != b"ftyp":
        return False
    # The main brand, its version, then the compatible ones.
    brands = {head[at : at + 4] for at in (8, *range(16, head[3], 4))}
    return bool(brands & _BRANDS) and not brands & {b"avif", b"avis"}


def read(path: Path | BytesIO, check: Callable[[tuple[int, int]], None]) -> Image.Image | Image16:
    """The main picture in a file, turned upright; 10 and 12 bits are spread over 16.

    `check(size)` is called before anything is decoded.
    """
    pillow_heif = extra("pillow_heif", "HEIC", "image")
    try:
        heif = pillow_heif.open_heif(path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        check(heif.size)
        info = dict(heif.info)
        pillow_heif.set_orientation(info)  # libheif has turned the pixels already
        pixels = np.asarray(heif)
    except RuntimeError as error:
        if _UNKNOWN.search(str(error)):
            raise InputError(f"HEIF of a kind that is not read: {reason(error)}") from error
        raise ValueError(str(error)) from error
    if pixels.dtype != np.uint8:
        white = 2 ** info["bit_depth"] - 1
        pixels = ((pixels.astype(np.uint32) * 65535 + white // 2) // white).astype(np.uint16)
    deep = pixels.dtype == np.uint16 and pixels.ndim == 3
    picture = Image16(pixels) if deep else Image.fromarray(pixels)
    picture.info = info
    return picture
