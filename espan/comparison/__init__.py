"""`compare`: results of several networks for one image, side by side, with scores."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from espan.checkpoints.weights import model_for
from espan.comparison.page import write_page
from espan.comparison.panes import Comparison, Pane
from espan.comparison.sheet import write_sheet
from espan.errors import InputError, LimitError, OutputError, escaped
from espan.evaluation.benchmark import COLUMNS, bicubic, measure
from espan.images import files
from espan.images.adapt import File
from espan.networks import SCALES
from espan.options import BackendName, Device, Dtype, Tile, UpscalerOptions
from espan.system.paths import as_path, is_folder, resolved, why_no_result
from espan.upscaler import Upscaler

# Total pixels of all results: a page contains all of them, and a browser decodes them all.
MAX_PIXELS = 200_000_000
BASELINE, REFERENCE = RESERVED = ("bicubic", "original")
SHEET = ".png"
SUFFIXES = (".html", ".htm", SHEET)


def compare(
    lr: File,
    hr: File | None = None,
    *,
    output: File | Sequence[File],
    models: Sequence[File] = (),
    device: Device = "auto",
    dtype: Dtype = "fp32",
    backend: BackendName = "auto",
    tile: Tile = "auto",
) -> Comparison:
    """Upscales `lr` by bicubic and by each of `models`, and writes a page or a contact sheet.

    With `hr`, scores the results like `espan eval`: 8 bits, `scale` pixels shaved, alpha ignored.

    Args:
        lr: an image file to upscale.
        hr: its original, 2, 3 or 4 times as large, or None.
        output: NAME.html, a self-contained page, or NAME.png, a labelled sheet; or several of
            these.
        models: built-in names and weights files; by default the built-in network for the scale
            from `lr` to `hr`, or x4 without `hr`.
        device, dtype, backend, tile: as for `Upscaler`, but dtype is fp32 by default.

    Returns:
        The images, (H, W, 3) uint8 each, and their scores.

    Raises:
        InputError: sizes or scales do not match, a file is not an image, or an output has another
            suffix.
        WeightsError: a model is not a network, or its file is damaged.
        OutputError: an output cannot be written.
        DeviceError: this machine lacks the device, dtype or backend.
    """
    outputs = [output] if isinstance(output, str | Path) else [*output]
    check_outputs(outputs, [lr, *([] if hr is None else [hr]), *models])
    options = UpscalerOptions(device, dtype, backend, tile)
    comparison = make(lr, hr, models, lambda model: Upscaler.from_options(model, options))
    for each in outputs:
        write(each, comparison)
    return comparison


def make(
    lr: File,
    hr: File | None,
    models: Sequence[File],
    upscaler: "Callable[[File], Upscaler]",
) -> Comparison:
    """Computes the images and scores of a comparison; `upscaler(model)` loads a network."""
    small = files.read_rgb(lr)
    large = None if hr is None else files.read_rgb(hr)
    hr_scale = None if large is None else _scale_of(lr, small, hr, large)
    models = list(models) or [model_for(hr_scale or 4)]
    upscalers = {label: upscaler(model) for label, model in _labels(models).items()}
    scale = hr_scale or next(iter(upscalers.values())).scale
    for each, model in zip(upscalers.values(), models, strict=True):
        if each.scale != scale:
            wanted = f"{hr} is x{scale} of {lr}" if hr else f"{models[0]} is x{scale}"
            raise InputError(f"{model}: a network of x{each.scale}, but {wanted}")
    height, width = small.shape[0] * scale, small.shape[1] * scale
    panes = len(upscalers) + 1 + (large is not None)
    if panes * height * width > MAX_PIXELS:
        raise LimitError(
            f"{lr}: {panes} images of {width} x {height} pixels exceed the limit of "
            f"{MAX_PIXELS:,} in total; crop the image"
        )
    results: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]
    results = {BASELINE: bicubic(scale), **upscalers}
    comparison = Comparison(escaped(Path(lr).name), scale, [])
    for label, enlarge in results.items():
        comparison.panes.append(Pane(label, enlarge(small)))
    if large is not None:
        large = np.ascontiguousarray(large[:height, :width])
        _score(comparison.panes, large, scale, hr)
        comparison.panes.append(Pane(REFERENCE, large))
    return comparison


def check_outputs(outputs: Sequence[File], inputs: Sequence[File]) -> None:
    """Raises before the work if an output cannot be written or would replace an input."""
    taken = {resolved(as_path(each, "input")): "would replace an input" for each in inputs}
    for path in (as_path(each, "output") for each in outputs):
        if reason := taken.get(resolved(path)):
            raise InputError(f"{path}: {reason}")
        taken[resolved(path)] = "is given twice"
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path}: expected .html (a page) or .png (a contact sheet)")
        if problem := why_no_result(path):
            raise OutputError(f"{path}: {problem}")
        if not os.access(path.parent, os.W_OK):
            reason = "not writable" if is_folder(path.parent) else "no such folder"
            raise OutputError(f"{path}: {path.parent}: {reason}")


def write(path: File, comparison: Comparison) -> None:
    """Writes the page or the sheet, depending on the suffix. Atomic."""
    sheet = Path(path).suffix.lower() == SHEET
    (write_sheet if sheet else write_page)(Path(path), comparison)


def _scale_of(lr: File, small: NDArray[np.uint8], hr: File | None, large: NDArray[np.uint8]) -> int:
    """The scale from `small` to `large`, which may have up to scale - 1 more rows and columns."""
    for scale in SCALES:
        if tuple(side // scale for side in large.shape[:2]) == small.shape[:2]:
            return scale
    found, base = (f"{image.shape[1]} x {image.shape[0]}" for image in (large, small))
    raise InputError(f"{hr}: expected 2, 3 or 4 times the {base} pixels of {lr}, got {found}")


def _labels(models: Sequence[File]) -> dict[str, File]:
    """{label: model}: the name without folder and extension, or the full path if not unique."""
    short = [Path(model).name.removesuffix(".safetensors").removesuffix(".pth") for model in models]
    taken = [*short, *RESERVED]
    labels = {}
    for name, model in zip(short, models, strict=True):
        label = escaped(name if taken.count(name) == 1 else str(model))
        if label in labels or label in RESERVED:
            raise InputError(f"{model}: this name is given twice")
        labels[label] = model
    return labels


def _score(panes: Sequence[Pane], large: NDArray[np.uint8], scale: int, hr: File | None) -> None:
    for pane in panes:
        try:
            scores = measure(pane.pixels, large, scale)
        except InputError as error:
            raise InputError(f"{hr}: cannot be scored: {error}") from error
        pane.scores = {column: scores[column] for column in COLUMNS}
