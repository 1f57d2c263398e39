"""`upscale_animation`: upscales an animation file, with a few frames in memory at a time."""

import logging
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from espan.animation import reading, writing
from espan.errors import InputError, OutputError
from espan.execution.frames import Report, upscale_in_order, with_progress
from espan.images import files
from espan.options import (
    LIMITS,
    BackendName,
    Device,
    Dtype,
    Limits,
    Progress,
    Tile,
    UpscalerOptions,
)
from espan.sizes import Size, result_size
from espan.system.atomic import whole_file
from espan.system.paths import as_path, is_file, resolved

if TYPE_CHECKING:
    from espan.checkpoints.weights import Model
    from espan.upscaler import Upscaler

log = logging.getLogger("espan")


def upscale_animation(
    path: str | Path,
    output: str | Path,
    scale: float | Size = 4,
    *,
    model: "Model" = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: BackendName = "auto",
    tile: Tile = "auto",
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> Path:
    """Upscales the animation at `path` and writes it to `output`.

    Keeps times, number of plays, transparency and colour profile. Upscales full frames as shown,
    even if the file stores only their differences.

    Args:
        path: the file to read: GIF, APNG, animated WebP or AVIF.
        output: the file to write; its suffix names the format: .gif, .png, .apng, .webp or .avif.
        scale: a factor from 1 to 64, or an `espan.Size`.
        model: a built-in name, a weights file or a network; None selects the built-in network of
            scale `scale` or the next larger one, else scale 4.
        device, dtype, backend, tile, limits: as for `Upscaler`.
        progress: called as `progress(done, total)` after every frame; both count frames.

    Returns:
        `output` as a path.

    Raises:
        InputError: the input is not an animation, damaged or too large, or an argument is invalid.
        OutputError: the output cannot be written, or its format does not support animations.
        WeightsError: `model` is not a network, or its file is damaged.
        DeviceError: this machine lacks the device, dtype or backend.
    """
    from espan.shortcut import prepared

    source, target = as_path(path, "animation"), as_path(output, "output")
    options = UpscalerOptions(device, dtype, backend, tile, limits=limits)
    convert(source, target, prepared(model, scale, options), scale, progress)
    return target


def convert(
    path: Path,
    output: Path,
    upscaler: "Upscaler",
    scale: float | Size,
    progress: Progress | None = None,
    *,
    limits: Limits | None = None,
) -> Report:
    """Same as `upscale_animation`, with a given upscaler; `limits` replaces the upscaler's."""
    format = writing.format_of(output)
    if is_file(output) and resolved(output) == resolved(path):
        raise InputError(f"{output}: would replace its input")
    animation = reading.inspect(path, scale, limits or upscaler.limits)
    if len(animation.durations) < 2:
        raise InputError(f"{path}: a single image, not an animation")
    size = result_size(scale, animation.size)
    if format == "GIF" and max(size) > 65535:
        raise OutputError(f"{output}: GIF holds at most 65535 pixels a side; choose png")
    if format != "GIF":
        files.check_format(output, format, animation.mode, size)
    files.check_writable(output)
    if format == "GIF" and animation.icc_profile:
        log.info("%s: GIF cannot hold the colour profile of %s; it is dropped", output, path)
    total = len(animation.durations)
    with (
        closing(_enlarged(animation, upscaler, scale)) as results,
        whole_file(output) as temporary,
        temporary.open("wb") as file,
    ):
        counted = with_progress(results, total, progress)
        writing.write(
            *(file, format, counted, animation.durations, animation.plays),
            icc_profile=animation.icc_profile,
        )
    return Report(total, *size)


def _enlarged(
    animation: reading.Animation, upscaler: "Upscaler", scale: float | Size
) -> Generator[Image.Image]:
    """Yields the upscaled frames in order."""

    def enlarge(frame: Image.Image) -> Image.Image:
        return upscaler(frame, scale)

    with closing(upscale_in_order(enlarge, reading.frames(animation), upscaler.device)) as pairs:
        for _, result in pairs:
            yield result
