"""PSNR and SSIM of a network over a folder of pictures, by the protocols the papers use."""

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
    """Scores of one picture, or means over a set: COLUMNS -> value, or why there are none."""

    dataset: str
    name: str
    values: dict[str, float]
    error: str | None = None


def evaluate(
    upscaler: Callable[[np.ndarray], np.ndarray], data: str | Path, scale: int
) -> Iterator[Scores]:
    """Scores of every picture under `data`, and after each set its mean, under the name "mean".

    A picture that cannot be measured has an error instead, and no part in the mean.

    data: a folder of HR pictures; or one with HR/ and, if there, LRx<scale>/ (published LR files);
    or a folder of such sets. LR pictures that are not there are made by MATLAB's bicubic.
    Both protocols work on 8-bit pictures, HR cropped to a multiple of the scale, `scale` pixels
    shaved: classical is PSNR and SSIM of Y, NTIRE of RGB. Grey files count as three equal channels.
    """
    for folder in benchmark_sets(data, scale):
        rows = []
        for path, problem in _pictures(folder):
            try:
                if problem:
                    raise InputError(problem)
                lr, hr = _pair(folder, path, scale)
                rows.append(measure(upscaler(lr), hr, scale))
            except InputError as error:
                said, there = str(error), escaped(str(path.parent))
                named = said if there in said else escaped(f"{path}: {said}")
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
    """MATLAB's bicubic as an upscaler: the baseline of every table."""
    return lambda image: resize(image, (image.shape[0] * scale, image.shape[1] * scale))


def benchmark_sets(data: str | Path, scale: int) -> list[Path]:
    """The sets that `evaluate` finds in a folder; InputError if there is none."""
    data = as_path(data, "data")
    if not is_folder(data):
        raise InputError(f"{data}: no such folder")
    sets = [each for each in (data, *folders(data)) if is_folder(each / "HR")] or [data]
    sets = [data] if data in sets else sets
    if not any(_pictures(folder) for folder in sets):
        raise InputError(f"{data}: expected pictures, HR/ (with LRx{scale}/), or folders of these")
    return sets


def sets_without_lr(data: str | Path, scale: int) -> list[Path]:
    """The sets in a folder that have no LR pictures of this scale: they will be made."""
    return [s for s in benchmark_sets(data, scale) if not is_folder(s / f"LRx{scale}")]


def _pictures(folder: Path) -> list[Found]:
    folder = folder / "HR" if is_folder(folder / "HR") else folder
    return listing(folder, files.READ_SUFFIXES)


def published_lr(folder: Path, path: Path, scale: int) -> Path | None:
    """The file in LRx<scale>/ of `folder` for the HR picture `path`, if there is one."""
    # Both habits of naming: baby.png, and NTIRE's babyx4.png.
    names = (path.name, f"{path.stem}x{scale}{path.suffix}")
    files_there = (folder / f"LRx{scale}" / name for name in names)
    return next((p for p in files_there if exists(p)), None)


def _pair(folder: Path, path: Path, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """(LR, HR) of a picture, HR cropped to a multiple of the scale."""
    hr = modcrop(files.read_rgb(path), scale)
    if hr.size == 0:
        raise InputError(f"smaller than {scale} x {scale} pixels")
    lr_path = published_lr(folder, path, scale)
    lr = downscale(hr, scale) if lr_path is None else files.read_rgb(lr_path)
    if (lr.shape[0] * scale, lr.shape[1] * scale) != hr.shape[:2]:
        raise InputError(f"{lr_path}: expected 1/{scale} of {path.name}, got {lr.shape[:2]}")
    return lr, hr
