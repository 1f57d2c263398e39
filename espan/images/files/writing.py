"""Writes image files atomically, with profile, EXIF and resolution."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from espan.errors import InputError, OutputError, short
from espan.images.files import metadata
from espan.images.files.png import PngRows
from espan.images.files.streams import Pages, Stream, Target, opened
from espan.images.files.tiff import TiffRows
from espan.images.image16 import Image16
from espan.system import paths

WRITE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}

_EXACT = ("L", "LA", "RGB", "RGBA", "I;16")
# Limits of the encoders: (longest side, modes).
_LIMITS = {
    "PNG": (2**31 - 1, (*_EXACT, "LA;16", "RGB;16", "RGBA;16")),
    "JPEG": (65535, ("L", "RGB")),
    "WEBP": (16383, ("L", "RGB", "RGBA", "LA")),
    # Pillow cannot read LA;16.
    "TIFF": (2**31 - 1, (*_EXACT, "RGB;16", "RGBA;16")),
    "BMP": (2**31 - 1, ("L", "RGB")),
    "AVIF": (65535, ("L", "RGB", "RGBA", "LA")),
}
SAVE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}

_ROWS: dict[str, type[PngRows | TiffRows]] = {"PNG": PngRows, "TIFF": TiffRows}
# Values per step when writing by rows.
_STEP = 1 << 22


def format_of(target: Target) -> str:
    """The format of a path by its extension; raises OutputError for unknown extensions."""
    if isinstance(target, Stream):
        return WRITE_FORMATS[target.suffix]
    path = Path(target)
    name = WRITE_FORMATS.get(path.suffix.lower())
    if name is None:
        known = ", ".join(WRITE_FORMATS)
        hint = "" if path.suffix else f"; for a folder, write {path}/"
        what = path.suffix or "a file without extension"
        raise OutputError(f"{path}: cannot write {what} (known: {known}){hint}")
    return name


def suffix_named(format: str) -> str:
    """The suffix of a format; raises InputError for formats that are not written."""
    suffix = "." + format.lower().lstrip(".") if isinstance(format, str) else ""
    if suffix not in WRITE_FORMATS:
        known = ", ".join(each[1:] for each in WRITE_FORMATS)
        raise InputError(f"format: expected one of {known}, got {short(format)}")
    return suffix


def kept_suffix(path: Path) -> str:
    """The suffix of a result: that of the input if the format is written, else .png."""
    return path.suffix if path.suffix.lower() in WRITE_FORMATS else ".png"


def check_output(path: Target, mode: str, size: tuple[int, int]) -> str:
    """The format of a path; raises OutputError if it cannot hold such an image."""
    name = format_of(path)
    if not isinstance(path, Stream):
        check_writable(Path(path))
    check_format(path, name, mode, size)
    return name


def check_format(path: Target, name: str, mode: str, size: tuple[int, int]) -> None:
    """Raises OutputError if the format `name` cannot hold such an image."""
    if name == "AVIF" and not features.check("avif"):
        raise OutputError(f"{path}: this build of Pillow has no AVIF; choose png")
    longest, modes = _LIMITS[name]
    if mode not in modes:
        transparent = mode.startswith(("LA", "RGBA")) and "RGBA" not in modes
        what = "transparency" if transparent else f"{mode} pixels"
        raise OutputError(f"{path}: {name} cannot hold {what}; choose png")
    if max(size) > longest:
        raise OutputError(
            f"{path}: {name} holds at most {longest} pixels a side, the result is "
            f"{size[0]} x {size[1]}; choose png"
        )


def check_writable(path: Path) -> None:
    """Raises OutputError if no file can be written at `path`."""
    if problem := paths.why_no_result(path):
        raise OutputError(f"{path}: {problem}")
    if not os.access(path.parent, os.W_OK):
        reason = "not writable" if paths.is_folder(path.parent) else "no such folder"
        raise OutputError(f"{path}: {path.parent}: {reason}")


def write(target: Target, image: Image.Image | Image16) -> Path | Stream:
    """Writes an image with its profile, EXIF and resolution, in the format of the extension.

    Atomic: an old file stays until the new one is complete. Raises OutputError.
    """
    place = target if isinstance(target, Stream) else Path(target)
    name = check_output(place, image.mode, image.size)
    if takes_rows(place, image.mode):
        with _rows(place, name, image.mode, image.size, image.info) as add:
            pixels = np.asarray(image)
            add(pixels if pixels.ndim == 3 else pixels[:, :, None])
        return place
    assert isinstance(image, Image.Image)  # formats for Image16 are written by rows
    options = {**SAVE.get(name, {}), **metadata.for_file(image.info, image.size, name)}
    with opened(place) as file:
        image.save(file, format=name, **options)
    return place


def takes_rows(target: Target, mode: str) -> bool:
    """Whether `rows` can write such an image to `target`."""
    suffix = target.suffix if isinstance(target, Stream) else Path(target).suffix
    name = WRITE_FORMATS.get(suffix.lower())
    return name in _ROWS and mode in _LIMITS[name][1]


def rows(
    target: Target, mode: str, size: tuple[int, int], info: dict
) -> AbstractContextManager[Callable[[np.ndarray], None]]:
    """Writes a PNG or TIFF from top to bottom, without the full image in memory.

    The context is a function that takes the next rows, (h, W, C) uint8 or uint16. Otherwise same as
    `write`.
    """
    return _rows(target, check_output(target, mode, size), mode, size, info)


@contextmanager
def _rows(
    target: Target, name: str, mode: str, size: tuple[int, int], info: dict
) -> Iterator[Callable[[np.ndarray], None]]:
    channels = {"L": 1, "I": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode.partition(";")[0]]
    dtype = np.dtype(np.uint16 if mode.endswith(";16") else np.uint8)
    step = max(1, _STEP // (size[0] * channels))
    with opened(target) as file:
        how = (file, size, channels, dtype, metadata.for_file(info, size, name))
        encoder: PngRows | TiffRows
        if isinstance(target, Pages):
            encoder = target.last = TiffRows(*how, after=target.last, big=target.big)
        else:
            encoder = _ROWS[name](*how)

        def add(pixels: np.ndarray) -> None:
            for top in range(0, len(pixels), step):
                encoder.add(pixels[top : top + step])

        yield add
        encoder.finish()
