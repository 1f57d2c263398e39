"""Training images: HR and LR pairs, decoded once, in memory or in a memory-mapped file.

A prepared folder has `pictures.bin` (HR pixels, RGB uint8, one image after another), `LRx4.bin` and
so on, and `index.json` with the position of each image and the files that could not be read.
"""

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espan.errors import EspanError, InputError
from espan.evaluation.benchmark import published_lr
from espan.images import files
from espan.images.resize import downscale, modcrop
from espan.networks import SCALES
from espan.system.atomic import whole_file
from espan.system.paths import Found, as_path, below, is_file, is_folder, reason

log = logging.getLogger("espan")

INDEX = "index.json"
# Tiles are cut to multiples of 12 pixels: x2, x3 and x4 all divide them.
MULTIPLE = 12
Pair = tuple[np.ndarray, ...]  # LR, HR and optionally the teachers' output for the LR image


@dataclass
class Skipped:
    """A file left out of training, and the reason, which includes its name."""

    path: str
    reason: str


class ImagePairs:
    """HR images and their LR versions at one scale: `pairs[i]` is (LR, HR), (H, W, 3) uint8.

    folder: a folder of images, searched recursively (LR by MATLAB's bicubic); one with HR/ and
    LRx<scale>/ with the same names; or one written by `prepare`. `names[i]` is the file of a pair;
    `skipped` lists unreadable files. Raises InputError if an LR file does not fit its HR file.
    """

    def __init__(self, folder: str | Path, scale: int):
        self.folder = as_path(folder, "data")
        self.skipped: list[Skipped] = []
        if is_file(self.folder / INDEX):
            found = list(_mapped(self.folder, scale))
        else:
            found = list(_decoded(self.folder, scale, self.skipped))
        self.names = [name for name, _ in found]
        self.pairs = [pair for _, pair in found]
        if self.skipped:
            first = self.skipped[0].reason
            log.warning("%d files left out of training: %s ...", len(self.skipped), first)

    def at_least(self, side: int) -> "ImagePairs":
        """Drops images with an HR side below `side`; raises InputError if none is left."""
        large = [i for i, pair in enumerate(self.pairs) if min(pair[1].shape[:2]) >= side]
        if not large:
            raise InputError(f"{self.folder}: no image with at least {side} pixels a side")
        some = copy.copy(self)
        some.names, some.pairs = [self.names[i] for i in large], [self.pairs[i] for i in large]
        return some

    def with_teacher_outputs(self, parts: list[np.ndarray]) -> "ImagePairs":
        """A copy in which `pairs[i]` is (LR, HR, parts[i])."""
        more = copy.copy(self)
        more.pairs = [(*pair[:2], part) for pair, part in zip(self.pairs, parts, strict=True)]
        return more


def prepare(folder: str | Path, out: str | Path, tile: int = 480) -> dict:
    """Decodes all images under `folder` into tiles in the folder `out`; returns the index.

    tile: side of the tiles in HR pixels, rounded down to a multiple of 12; smaller images are not
    cut. LR images are read from LRx<scale>/ if `folder` has it, or else computed from the full
    image by MATLAB's bicubic, at scales 2, 3 and 4.

    Raises InputError if no image can be read, or if LR and HR sizes do not fit.
    """
    source, out = as_path(folder, "input"), as_path(out, "output")
    if tile < MULTIPLE:
        raise InputError(f"tile: expected at least {MULTIPLE} pixels, got {tile}")
    tile -= tile % MULTIPLE
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{out}: cannot write to this folder: {reason(error)}") from error
    skipped: list[Skipped] = []
    entries: list[list] = []
    (out / INDEX).unlink(missing_ok=True)  # no index until all files are complete
    with ExitStack() as stack:
        files_of = {
            scale: stack.enter_context(
                stack.enter_context(whole_file(out / _bin(scale))).open("wb")
            )
            for scale in (1, *SCALES)
        }
        for found in _sources(source):
            path, hr = found.path, _read(found, skipped)
            if hr is None:
                continue
            hr = modcrop(hr, MULTIPLE)
            if not hr.size:
                small = f"{path}: smaller than {MULTIPLE} x {MULTIPLE} pixels"
                skipped.append(Skipped(str(path), small))
                continue
            lr = {scale: _lr(path, source, hr, scale) for scale in SCALES}
            for y in range(0, hr.shape[0], tile):
                for x in range(0, hr.shape[1], tile):
                    for scale, pixels in ((1, hr), *lr.items()):
                        rows = slice(y // scale, (y + tile) // scale)
                        columns = slice(x // scale, (x + tile) // scale)
                        files_of[scale].write(pixels[rows, columns].tobytes())
                    height, width = (
                        min(tile, side - at) for side, at in zip(hr.shape, (y, x), strict=False)
                    )
                    entries.append([str(path), y, x, height, width])
        if not entries:
            raise InputError(f"{folder}: no readable images")
    index = {
        "version": 1,
        "multiple": MULTIPLE,
        "pictures": entries,
        "skipped": [vars(each) for each in skipped],
    }
    with whole_file(out / INDEX) as temporary:
        temporary.write_text(json.dumps(index))
    return index


def _bin(scale: int) -> str:
    return "pictures.bin" if scale == 1 else f"LRx{scale}.bin"


def _mapped(folder: Path, scale: int) -> Iterator[tuple[str, Pair]]:
    try:
        index = json.loads((folder / INDEX).read_text())
        entries = index["pictures"]
        hr, lr = (np.memmap(folder / _bin(s), np.uint8, "r") for s in (1, scale))
        shapes = [(height, width, 3) for _, _, _, height, width in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder}: not a prepared folder: {error}") from error
    for pixels, by in ((hr, 1), (lr, scale)):
        if pixels.size != sum((height // by) * (width // by) * 3 for height, width, _ in shapes):
            raise InputError(f"{folder}: the size of {_bin(by)} does not match {INDEX}")
    at_hr = at_lr = 0
    for (name, *_), large in zip(entries, shapes, strict=True):
        small = (large[0] // scale, large[1] // scale, 3)
        sizes = int(np.prod(large)), int(np.prod(small))
        pair = (
            lr[at_lr : at_lr + sizes[1]].reshape(small),
            hr[at_hr : at_hr + sizes[0]].reshape(large),
        )
        yield name, pair
        at_hr, at_lr = at_hr + sizes[0], at_lr + sizes[1]


def _decoded(folder: Path, scale: int, skipped: list[Skipped]) -> Iterator[tuple[str, Pair]]:
    for found in _sources(folder):
        path, hr = found.path, _read(found, skipped)
        if hr is not None and (hr := modcrop(hr, scale)).size:
            yield str(path), (_lr(path, folder, hr, scale), hr)


def _sources(folder: Path) -> list[Found]:
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder")
    hr = folder / "HR" if is_folder(folder / "HR") else folder
    return below(hr, files.READ_SUFFIXES)


def _read(found: Found, skipped: list[Skipped]) -> np.ndarray | None:
    try:
        if found.problem:
            raise InputError(f"{found.path}: {found.problem}")
        return files.read_rgb(found.path)
    except EspanError as error:
        skipped.append(Skipped(str(found.path), str(error)))
        return None


def _lr(path: Path, folder: Path, hr: np.ndarray, scale: int) -> np.ndarray:
    """The LR image from its file, or else by MATLAB's bicubic."""
    given = folder / f"LRx{scale}"
    if not is_folder(given):
        return downscale(hr, scale)
    lr_path = published_lr(folder, path, scale)
    if lr_path is None:
        raise InputError(f"{path}: {given} has no LR image of this name")
    lr = files.read_rgb(lr_path)
    rows, columns = hr.shape[0] // scale, hr.shape[1] // scale
    # HR images may have been cropped by a few pixels more than LR images.
    if not (rows <= lr.shape[0] < rows + MULTIPLE and columns <= lr.shape[1] < columns + MULTIPLE):
        raise InputError(
            f"{lr_path}: {lr.shape[1]} x {lr.shape[0]} pixels do not fit {path} with "
            f"{hr.shape[1]} x {hr.shape[0]} pixels at scale {scale}"
        )
    return lr[:rows, :columns]
