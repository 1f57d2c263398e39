"""Picture files out: each appears whole or not at all, with its profile, EXIF and resolution."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from espan.errors import OutputError
from espan.images.files import metadata
from espan.images.files.png import PngRows
from espan.images.files.tiff import TiffRows
from espan.images.image16 import Image16
from espan.system import paths
from espan.system.atomic import whole_file

WRITE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}

_EXACT = ("L", "LA", "RGB", "RGBA", "I;16")
# What an encoder takes: (longest side, modes).
_LIMITS = {
    "PNG": (2**31 - 1, (*_EXACT, "LA;16", "RGB;16", "RGBA;16")),
    "JPEG": (65535, ("L", "RGB")),
    "WEBP": (16383, ("L", "RGB", "RGBA", "LA")),
    # Pillow cannot read what would be LA;16.
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
# Values per step of a picture written row by row.
_STEP = 1 << 22


def format_of(path: str | Path) -> str:
    """The format that a path's extension names; OutputError if it names none."""
    path = Path(path)
    name = WRITE_FORMATS.get(path.suffix.lower())
    if name is None:
        known = ", ".join(WRITE_FORMATS)
        hint = "" if path.suffix else f"; for a folder, write {path}/"
        what = path.suffix or "a file without extension"
        raise OutputError(f"{path}: cannot write {what} (known: {known}){hint}")
    return name


def check_output(path: str | Path, mode: str, size: tuple[int, int]) -> str:
    """The format a path asks for; OutputError if that format cannot hold such a picture."""
    path, name = Path(path), format_of(path)
    if problem := paths.why_no_result(path):
        raise OutputError(f"{path}: {problem}")
    if name == "AVIF" and not features.check("avif"):
        raise OutputError(f"{path}: this build of Pillow has no AVIF; choose png")
    if not os.access(path.parent, os.W_OK):
        reason = "not writable" if paths.is_folder(path.parent) else "no such folder"
        raise OutputError(f"{path}: {path.parent}: {reason}")
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
    return name


def write(path: str | Path, image: Image.Image | Image16) -> Path:
    """Writes the picture with its profile, EXIF and resolution; the format is the extension's.

    The file appears whole or not at all, an old one stays until then. OutputError otherwise.
    """
    return writer(path, image)()


def writer(path: str | Path, image: Image.Image | Image16) -> Callable[[], Path]:
    """`write` up to the writing: a function of no arguments, which another thread may call."""
    path = Path(path)
    name = check_output(path, image.mode, image.size)
    if takes_rows(path, image.mode):

        def finish() -> Path:
            with _rows(path, name, image.mode, image.size, image.info) as add:
                pixels = np.asarray(image)
                add(pixels if pixels.ndim == 3 else pixels[:, :, None])
            return path

        return finish
    assert isinstance(image, Image.Image)  # an Image16 goes to formats that take rows
    options = {**SAVE.get(name, {}), **metadata.for_file(image.info, image.size, name)}

    def save() -> Path:
        with whole_file(path) as temporary:
            image.save(temporary, format=name, **options)
        return path

    return save


def takes_rows(path: str | Path, mode: str) -> bool:
    """Whether such a picture can be written to `path` by `rows`."""
    name = WRITE_FORMATS.get(Path(path).suffix.lower())
    return name in _ROWS and mode in _LIMITS[name][1]


def rows(
    path: str | Path, mode: str, size: tuple[int, int], info: dict
) -> AbstractContextManager[Callable[[np.ndarray], None]]:
    """A PNG or TIFF that is given its rows from top to bottom, and never held in memory whole.

    Gives the function that takes the next rows: (h, W, C) uint8 or uint16. Else as `write`.
    """
    return _rows(Path(path), check_output(path, mode, size), mode, size, info)


@contextmanager
def _rows(
    path: Path, name: str, mode: str, size: tuple[int, int], info: dict
) -> Iterator[Callable[[np.ndarray], None]]:
    channels = {"L": 1, "I": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode.partition(";")[0]]
    dtype = np.dtype(np.uint16 if mode.endswith(";16") else np.uint8)
    step = max(1, _STEP // (size[0] * channels))
    with whole_file(path) as temporary, temporary.open("wb") as file:
        encoder = _ROWS[name](file, size, channels, dtype, metadata.for_file(info, size, name))

        def add(pixels: np.ndarray) -> None:
            for top in range(0, len(pixels), step):
                encoder.add(pixels[top : top + step])

        yield add
        encoder.finish()
