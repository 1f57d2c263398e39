"""`compare`: what several networks make of one picture, side by side, with scores."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from espan.comparison.page import write_page
from espan.comparison.panes import Comparison, Pane
from espan.comparison.sheet import write_sheet
from espan.errors import InputError, LimitError, OutputError
from espan.evaluation.benchmark import COLUMNS, bicubic, measure
from espan.images import files
from espan.upscaler import Upscaler, model_for

# Pixels of all results together: a page holds every one of them, and a browser decodes them all.
MAX_PIXELS = 200_000_000
BASELINE, REFERENCE = RESERVED = ("bicubic", "original")
SHEET = ".png"
SUFFIXES = (".html", ".htm", SHEET)


def compare(
    lr: str | Path,
    hr: str | Path | None = None,
    *,
    output: str | Path | Sequence[str | Path],
    models: Sequence[str | Path] = (),
    **engine: Any,
) -> Comparison:
    """Writes `lr` enlarged by bicubic and by each of `models` to a page or a contact sheet.

    output: NAME.html, one file that needs no other, or NAME.png, a labelled sheet; or several.
    models: built-in names and weights files; by default the built-in network of the scale, which
    is that of `hr` to `lr`, 4 without `hr`. engine: as for `Upscaler`, but dtype is "fp32".

    With `hr` the results are scored as `espan eval` does: 8 bits, `scale` pixels shaved, alpha left
    out. Raises InputError (sizes and scales that do not fit, unknown output), WeightsError,
    OutputError.
    """
    outputs = [output] if isinstance(output, str | Path) else [*output]
    check_outputs(outputs, [lr, *([hr] if hr else []), *models])
    engine = {"dtype": "fp32"} | engine
    comparison = make(lr, hr, models, lambda model: Upscaler(model, **engine))
    for each in outputs:
        write(each, comparison)
    return comparison


def make(
    lr: str | Path,
    hr: str | Path | None,
    models: Sequence[str | Path],
    upscaler: Callable[[str | Path], Any],
) -> Comparison:
    """The pictures and scores of a comparison; `upscaler(model)` makes the network ready."""
    small = files.read_rgb(lr)
    large = None if hr is None else files.read_rgb(hr)
    scale = None if large is None else _scale_of(lr, small, hr, large)
    models = list(models) or [_built_in(scale)]
    upscalers = {}
    for label, model in _labels(models).items():
        upscalers[label] = upscaler(model)
        scale = scale or upscalers[label].scale
        if upscalers[label].scale != scale:
            wanted = f"{hr} is x{scale} of {lr}" if hr else f"{models[0]} is x{scale}"
            raise InputError(f"{model}: a network of x{upscalers[label].scale}, but {wanted}")
    height, width = small.shape[0] * scale, small.shape[1] * scale
    panes = len(upscalers) + 1 + (large is not None)
    if panes * height * width > MAX_PIXELS:
        raise LimitError(
            f"{lr}: {panes} pictures of {width} x {height} pixels are over the limit of "
            f"{MAX_PIXELS:,} for all; cut a piece out"
        )
    results = {BASELINE: bicubic(scale)} | upscalers
    comparison = Comparison(Path(lr).name, scale, [])
    for label, enlarge in results.items():
        comparison.panes.append(Pane(label, enlarge(small)))
    if large is not None:
        large = np.ascontiguousarray(large[:height, :width])
        _score(comparison.panes, large, scale, hr)
        comparison.panes.append(Pane(REFERENCE, large))
    return comparison


def check_outputs(outputs: Sequence[str | Path], inputs: Sequence[str | Path]) -> None:
    """Says what cannot be written, or would replace an input, before the work, not after it."""
    taken = {Path(each).resolve(): "would replace an input" for each in inputs}
    for path in map(Path, outputs):
        if reason := taken.get(path.resolve()):
            raise InputError(f"{path}: {reason}")
        taken[path.resolve()] = "is given twice"
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path}: expected .html (a page) or .png (a contact sheet)")
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            reason = "not writable" if path.parent.is_dir() else "no such folder"
            reason = "is a folder" if path.is_dir() else f"{path.parent}: {reason}"
            raise OutputError(f"{path}: {reason}")


def write(path: str | Path, comparison: Comparison) -> None:
    """The page or the sheet, as the name says; whole or not at all."""
    sheet = Path(path).suffix.lower() == SHEET
    (write_sheet if sheet else write_page)(Path(path), comparison)


def _scale_of(lr, small: np.ndarray, hr, large: np.ndarray) -> int:
    """How many times larger `large` is; up to scale - 1 rows and columns of it may be left over."""
    for scale in (2, 3, 4):
        if tuple(side // scale for side in large.shape[:2]) == small.shape[:2]:
            return scale
    found, base = (f"{image.shape[1]} x {image.shape[0]}" for image in (large, small))
    raise InputError(f"{hr}: expected 2, 3 or 4 times the {base} pixels of {lr}, got {found}")


def _built_in(scale: int | None) -> str:
    return model_for(scale or 4)


def _labels(models: Sequence[str | Path]) -> dict[str, str | Path]:
    """Name to show -> model: its name without folder and extension, or all of it for namesakes."""
    short = [Path(model).name.removesuffix(".safetensors").removesuffix(".pth") for model in models]
    taken = [*short, *RESERVED]
    labels = {}
    for name, model in zip(short, models, strict=True):
        label = name if taken.count(name) == 1 else str(model)
        if label in labels or label in RESERVED:
            raise InputError(f"{model}: this name is given twice")
        labels[label] = model
    return labels


def _score(panes: Sequence[Pane], large: np.ndarray, scale: int, hr) -> None:
    for pane in panes:
        try:
            scores = measure(pane.pixels, large, scale)
        except InputError as error:
            raise InputError(f"{hr}: cannot be scored: {error}") from error
        pane.scores = {column: scores[column] for column in COLUMNS}
