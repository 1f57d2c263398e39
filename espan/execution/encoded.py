"""Encoded images: paths, bytes and open files in, files or bytes out."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from espan.errors import InputError
from espan.execution import streaming
from espan.execution.pages import upscale_pages
from espan.images import files
from espan.images.adapt import FromFile
from espan.options import Limits, Progress
from espan.sizes import Size, result_size
from espan.system.paths import as_path


def is_encoded(image: Any, output: Any = None, format: Any = None) -> bool:
    """Whether `image` is a path, bytes or an open file.

    Raises InputError if it is not and `output` or `format` is set.
    """
    if isinstance(image, str | Path) or files.is_data(image):
        return True
    for name, value in (("output", output), ("format", format)):
        if value is not None:
            raise InputError(f"{name}: only for images given as paths, bytes or open files")
    return False


def upscale_encoded(
    upscaler: streaming.Enlarges,
    image: Any,
    scale: float | Size,
    limits: Limits,
    output: Any = None,
    format: str | None = None,
    progress: Progress | None = None,
) -> Any:
    """`Upscaler.__call__` for a path, bytes or an open file."""
    is_data = files.is_data(image)
    to_stream = not isinstance(output, str | Path) and (output is not None or is_data)
    if format is not None and not to_stream:
        raise InputError("format: only for bytes and open files; a path's suffix sets its format")
    target: files.Target | None = None
    if output is not None and not to_stream:
        target = as_path(output, "output")
    suffix = None if format is None else files.suffix_named(format)
    if to_stream and output is not None:
        files.stream_to(output, ".png")  # raises before anything is read
    source = files.encoded(image, limits) if is_data else as_path(image, "image")
    if to_stream:
        target = files.stream_to(BytesIO() if output is None else output, suffix or _kept(source))
    try:
        pixels = files.read(source, scale=scale, limits=limits)
    except files.PagesError:
        if target is None:
            raise
        upscale_pages(source, target, upscaler, scale, progress, limits=limits)
    else:
        if target is None:
            return upscaler(pixels, scale, progress=progress)
        # Raises before the work if the result cannot be written.
        files.check_output(target, pixels.mode, result_size(scale, pixels.size))
        streaming.upscale_to(target, upscaler, pixels, scale, progress)
    if not isinstance(target, files.Stream):
        return target
    return target.file.getvalue() if isinstance(target.file, BytesIO) and output is None else output


def decoded(
    image: Any, scale: float | Size, limits: Limits
) -> tuple[FromFile, Callable[[FromFile], Any]]:
    """Reads one image of a list; returns it and a function that converts its result.

    The result of a path stays an image; bytes and open files give bytes in the format
    of the input.
    """
    source = files.encoded(image, limits) if files.is_data(image) else as_path(image, "image")
    pixels = files.read(source, scale=scale, limits=limits)
    if not files.is_data(image):
        return pixels, lambda result: result
    file = BytesIO()
    target = files.stream_to(file, _kept(source))
    files.check_output(target, pixels.mode, result_size(scale, pixels.size))

    def encode(result: FromFile) -> bytes:
        files.write(target, result)
        return file.getvalue()

    return pixels, encode


def _kept(source: files.Source) -> str:
    """The suffix of a result in the format of its input."""
    return files.kept_suffix(source) if isinstance(source, Path) else files.suffix_of(source)
