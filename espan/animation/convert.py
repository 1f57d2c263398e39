"""`upscale_animation`: from file to file, a few frames in memory at a time."""

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
    """Writes the animation at `path`, made `scale` times larger, to `output`.

    Times, number of plays, transparency and colour profile are kept; frames are written as they
    are shown, whatever was stored of each.

    Args:
        path: the file to read: GIF, APNG, animated WebP or AVIF.
        output: the file to write; its suffix names the format: .gif, .png, .apng, .webp or .avif.
        scale: how many times larger, from 1 to 64, or an `espan.Size`.
        model: a built-in name, a weights file or a network; None takes the built-in network whose
            scale is `scale` or the next larger, else of scale 4.
        device, dtype, backend, tile, limits: as for `Upscaler`.
        progress: called as `progress(done, total)` after every frame, in frames.

    Returns:
        `output` as a path.

    Raises:
        InputError: the input is no animation, damaged or too large, or an argument cannot be used.
        OutputError: the output cannot be written, or its format has no animations.
        WeightsError: `model` names no network, or its file is damaged.
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
    """`upscale_animation` with the network held ready; `limits` in place of the upscaler's."""
    format = writing.format_of(output)
    if is_file(output) and resolved(output) == resolved(path):
        raise InputError(f"{output}: would replace its input")
    animation = reading.look(path, scale, limits or upscaler.limits)
    if len(animation.durations) < 2:
        raise InputError(f"{path}: a single picture, not an animation")
    size = result_size(scale, animation.size)
    if format == "GIF" and max(size) > 65535:
        raise OutputError(f"{output}: GIF holds at most 65535 pixels a side; choose png")
    if format != "GIF":
        files.check_format(output, format, animation.mode, size)
    files.check_writable(output)
    if format == "GIF" and animation.icc_profile:
        log.info("%s: GIF holds no colour profile; that of %s is dropped", output, path)
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
    """The frames upscaled, in their order."""

    def enlarge(frame: Image.Image) -> Image.Image:
        return upscaler(frame, scale)

    with closing(upscale_in_order(enlarge, reading.frames(animation), upscaler.device)) as pairs:
        for _, result in pairs:
            yield result
