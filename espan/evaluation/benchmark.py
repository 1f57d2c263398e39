"""Benchmarks: PSNR and SSIM of a network on a folder of images, by the protocols of the papers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espan.errors import InputError, escaped
from espan.evaluation.metrics import PROTOCOLS, psnr, ssim
from espan.images import files
from espan.images.resize import downscale, modcrop, resize
from espan.system.paths import Found, as_path, exists, folders, is_folder, listing

COLUMNS = tuple(f"{metric}_{space}" for space in PROTOCOLS.values() for metric in ("psnr", "ssim"))


@dataclass
class Scores:
    """Scores of one image or means of a set: {column: value}, or the error."""

    dataset: str
    name: str
    values: dict[str, float]
    error: str | None = None


def evaluate(
    upscaler: Callable[[np.ndarray], np.ndarray], data: str | Path, scale: int
) -> Iterator[Scores]:
    """Yields the scores of all images under `data`, and after each set the means, named "mean".

    An image that cannot be measured gets an error instead, and is not part of the mean.

    data: a folder of HR images; one with HR/ and optionally LRx<scale>/ (published LR files); or a
    folder of such sets. Missing LR images are computed by MATLAB's bicubic.
    Both protocols use 8-bit images, HR cropped to a multiple of the scale, `scale` pixels shaved:
    classical is PSNR and SSIM of Y, NTIRE of RGB. Grey images count as three equal channels.
    """
    for folder in benchmark_sets(data, scale):
        rows = []
        for path, problem in _images(folder):
            try:
                if problem:
                    raise InputError(problem)
                lr, hr = _pair(folder, path, scale)
                rows.append(measure(upscaler(lr), hr, scale))
            except InputError as error:
                message, folder_name = str(error), escaped(str(path.parent))
                named = message if folder_name in message else escaped(f"{path}: {message}")
                yield Scores(folder.name, path.stem, {}, named)
            else:
                yield Scores(folder.name, path.stem, rows[-1])
        if rows:
            means = {c: float(np.mean([row[c] for row in rows])) for c in COLUMNS}
            yield Scores(folder.name, "mean", means)


def measure(result: np.ndarray, hr: np.ndarray, border: int) -> dict[str, float]:
    return {
        f"{metric.__name__}_{space}": metric(result, hr, space=space, border=border, range=255)
        for space in PROTOCOLS.values()
        for metric in (psnr, ssim)
    }


def bicubic(scale: int) -> Callable[[np.ndarray], np.ndarray]:
    """MATLAB's bicubic as an upscaler, the baseline of all tables."""
    return lambda image: resize(image, (image.shape[0] * scale, image.shape[1] * scale))


def benchmark_sets(data: str | Path, scale: int) -> list[Path]:
    """The sets that `evaluate` finds in a folder; raises InputError if there are none."""
    data = as_path(data, "data")
    if not is_folder(data):
        raise InputError(f"{data}: no such folder")
    sets = [each for each in (data, *folders(data)) if is_folder(each / "HR")] or [data]
    sets = [data] if data in sets else sets
    if not any(_images(folder) for folder in sets):
        raise InputError(f"{data}: expected images, HR/ (with LRx{scale}/), or folders of these")
    return sets


def sets_without_lr(data: str | Path, scale: int) -> list[Path]:
    """The sets in a folder without LR images at this scale, which will be computed."""
    return [s for s in benchmark_sets(data, scale) if not is_folder(s / f"LRx{scale}")]


def _images(folder: Path) -> list[Found]:
    folder = folder / "HR" if is_folder(folder / "HR") else folder
    return listing(folder, files.READ_SUFFIXES)


def published_lr(folder: Path, path: Path, scale: int) -> Path | None:
    """The file in LRx<scale>/ of `folder` for the HR image `path`, or None."""
    # Either the same name, baby.png, or NTIRE's, babyx4.png.
    names = (path.name, f"{path.stem}x{scale}{path.suffix}")
    files_there = (folder / f"LRx{scale}" / name for name in names)
    return next((p for p in files_there if exists(p)), None)


def _pair(folder: Path, path: Path, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (LR, HR) of an image, HR cropped to a multiple of the scale."""
    hr = modcrop(files.read_rgb(path), scale)
    if hr.size == 0:
        raise InputError(f"smaller than {scale} x {scale} pixels")
    lr_path = published_lr(folder, path, scale)
    lr = downscale(hr, scale) if lr_path is None else files.read_rgb(lr_path)
    if (lr.shape[0] * scale, lr.shape[1] * scale) != hr.shape[:2]:
        raise InputError(f"{lr_path}: expected 1/{scale} of {path.name}, got {lr.shape[:2]}")
    return lr, hr
