"""`upscale_video`, and the iterator `video_frames`. Importing this module does not need PyAV."""

import hashlib
import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espan import __version__
from espan.errors import EspanError, InputError, LimitError, OutputError
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
from espan.sizes import Size
from espan.system.atomic import remove_leftovers, whole_file
from espan.system.paths import as_path, is_file, is_folder, resolved, why_no_result
from espan.video.options import Options, Time, need_pyav

if TYPE_CHECKING:
    import numpy.typing as npt

    from espan.checkpoints.weights import Model
    from espan.upscaler import Upscaler
    from espan.video.frames import Frame
    from espan.video.on_device import OnDevice
    from espan.video.source import Clip

    # RGB (H, W, 3), or planes for the encoder.
    Upscaled = tuple[Frame, Any]

log = logging.getLogger("espan")

# Frames per segment; an interrupted run continues after its last complete segment.
SEGMENT = 240


def upscale_video(
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
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    on_error: str = "stop",
    hwaccel: str | None = None,
    start: Time | None = None,
    end: Time | None = None,
    preview: Time | None = None,
    progress: Progress | None = None,
) -> Path:
    """Upscales the video at `path` by `scale` and writes it to `output`.

    All other streams, chapters, metadata and times are kept. After an interruption, a call with
    the same settings continues after the last complete segment of 240 frames.

    Args:
        path: the video file to read.
        output: the video file to write; its suffix names the container.
        scale: how many times larger, from 1 to 64, or an `espan.Size`.
        model: a built-in name, a weights file or a network; None takes the built-in network whose
            scale is `scale` or the next larger, else of scale 4.
        device, dtype, backend, tile, limits: as for `Upscaler`.
        codec: FFmpeg's name of the encoder; None selects H.264, or H.265 or AV1 for more than 8
            bits and HDR.
        crf: constant quality on the encoder's scale, 0 or more, lower is better; None is espan's
            default for the encoder.
        preset: one of the encoder's speed presets.
        pix_fmt: FFmpeg's name of the pixel format; None keeps the input's where the encoder can.
        on_error: for a frame that cannot be decoded, "stop" raises and "repeat" repeats a
            neighbouring frame.
        hwaccel: name of the hardware decoder ("cuda", "qsv", ...) to use instead of the CPU;
            InputError with the reason if it cannot decode the video.
        start: where the result begins: seconds, or text such as "1:02:03.5" (h:mm:ss); sound,
            subtitles and chapters are cut to match. None is the beginning.
        end: where it ends, in the same form; None is the end of the video.
        preview: seconds of video from `start` on, instead of `end`.
        progress: called as `progress(done, total)` after every frame, counted in frames.

    Returns:
        `output` as a path.

    Raises:
        InputError: the input or an argument cannot be used, or PyAV is not installed.
        OutputError: the output cannot be written.
        WeightsError: `model` names no network, or its file is damaged.
        DeviceError: this machine lacks the device, dtype or backend.
    """
    from espan.shortcut import prepared

    options = UpscalerOptions(device, dtype, backend, tile, limits=limits)
    encoding = Options(codec, crf, preset, pix_fmt, on_error, hwaccel, start, end, preview)
    source, target = as_path(path, "video"), as_path(output, "output")
    convert(source, target, prepared(model, scale, options), scale, encoding, progress)
    return target


def video_frames(
    path: str | Path,
    scale: float | Size = 4,
    *,
    model: "Model" = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: BackendName = "auto",
    tile: Tile = "auto",
    limits: Limits = LIMITS,
    on_error: str = "stop",
    hwaccel: str | None = None,
    start: Time | None = None,
    end: Time | None = None,
) -> "Iterator[tuple[float, npt.NDArray[Any]]]":
    """Yields the upscaled frames of a video, upright, in display order.

    The next frames are computed while the caller uses one.

    Args:
        path: the video file to read.
        scale: how many times larger, from 1 to 64, or an `espan.Size`.
        model: a built-in name, a weights file or a network; None takes the built-in network whose
            scale is `scale` or the next larger, else of scale 4.
        device, dtype, backend, tile, limits: as for `Upscaler`.
        on_error: for a frame that cannot be decoded, "stop" raises and "repeat" repeats a
            neighbouring frame.
        hwaccel: name of the hardware decoder ("cuda", "qsv", ...) to use instead of the CPU;
            InputError with the reason if it cannot decode the video.
        start, end: the part of the video, as for `upscale_video`.

    Returns:
        An iterator of (seconds from `start`, image): the image is (H, W, 3) RGB, uint8 in 0..255,
        or uint16 in 0..65535 for videos of more than 8 bits.

    Raises:
        InputError: the input or an argument cannot be used, or PyAV is not installed.
        WeightsError: `model` names no network, or its file is damaged.
        DeviceError: this machine lacks the device, dtype or backend.
    """
    from espan.shortcut import prepared

    options = UpscalerOptions(device, dtype, backend, tile, limits=limits)
    reading = Options(on_error=on_error, hwaccel=hwaccel, start=start, end=end)
    upscaler = prepared(model, scale, options)
    need_pyav()
    from espan.video import frames

    clip = _probe(as_path(path, "video"), scale, upscaler.limits, reading)
    _warn_of_guess(clip.path, clip.guess)
    decoded = frames.read(clip, reading.on_error)
    with closing(_upscaled(clip, decoded, upscaler, scale)) as results:
        for frame, image in results:
            yield float(frame.pts * clip.time_base), image


def identity_of(upscaler: "Upscaler") -> list[str]:
    """Hash of the weights, and the settings: two runs with the same list give the same frames."""
    digest = hashlib.sha256()
    for name, weights in sorted(upscaler.network.state_dict().items()):
        digest.update(name.encode() + weights.detach().float().cpu().numpy().tobytes())
    options = upscaler.options
    settings = options.device, options.dtype, options.backend, options.tile
    return [digest.hexdigest(), *map(str, settings)]


def convert(
    path: Path,
    output: Path,
    upscaler: "Upscaler",
    scale: float | Size,
    options: Options,
    progress: Progress | None = None,
) -> Report:
    """`upscale_video` with an existing upscaler."""
    need_pyav()
    import av

    from espan.system.ahead import ahead
    from espan.video import encoding, frames, mux, on_device
    from espan.video.segments import Segments, exclusive

    clip = _probe(path, scale, upscaler.limits, options)
    if problem := why_no_result(output):
        raise OutputError(f"{output}: {problem}")
    if is_file(output) and output.samefile(path):
        raise InputError(f"{output}: would replace its input")
    if not is_folder(output.parent):
        raise OutputError(f"{output}: {output.parent}: no such folder")
    container = mux.container_for(output)
    format = container.format.name
    chosen = encoding.choose(container, clip, scale, options)
    others, flags = mux.check(format, clip, chosen)
    remove_leftovers(output.parent)  # of runs that were killed while they wrote the final file
    facts = path.stat()
    with exclusive(output):
        segments = Segments(
            output,
            {
                "input": [str(resolved(path)), facts.st_size, facts.st_mtime_ns],
                "part": [clip.start, clip.length],
                "scale": str(scale),
                "network": identity_of(upscaler),
                "encoding": [chosen, flags, options.on_error, options.hwaccel, SEGMENT],
                "made by": [__version__, av.__version__, str(av.library_versions)],
            },
        )
        done = segments.frames
        if done:
            log.info("%s: continuing after frame %d", output, done)
        else:  # the interrupted run has warned already
            _warn_of_guess(path, clip.guess)
        there = None
        if on_device.suits(upscaler, scale, clip, chosen):
            there = on_device.OnDevice(upscaler, clip, chosen)
        # Each stage works ahead of the next: decoding, RGB, the network, the encoder's colours.
        decoded = frames.read(clip, options.on_error, done, there.empty if there else None)
        results = _upscaled(clip, decoded, there or upscaler, scale)
        with closing(ahead(encoding.converted(results, chosen), depth=1)) as ready:
            counted = with_progress(ready, clip.total, progress, done)
            while (first := next(counted, None)) is not None:
                part = chain([first], islice(counted, SEGMENT - 1))
                segments.write(encoding.encoded(part, chosen, flags))
        with whole_file(output) as temporary:
            mux.write(temporary, format, clip, chosen, others, segments)
        segments.remove()
        return Report(segments.frames, chosen.width, chosen.height)


@cache
def _warn_of_guess(path: Path, guess: str | None) -> None:
    """Warns about missing colour tags, once per file."""
    if guess:
        log.warning("%s: no colour matrix in the file; %s", path, guess)


def _probe(path: Path, scale: float | Size, limits: Limits, options: Options) -> "Clip":
    """The Clip of a file, or of a part of it; LimitError if its frames are too large."""
    from espan.video import cutting, source

    clip = cutting.cut(source.probe(path, options.hwaccel), options)
    try:
        files.check_size((clip.width, clip.height), scale, limits)
    except LimitError as error:
        raise LimitError(f"{path}: {error}") from error
    return clip


def _upscaled(
    clip: "Clip", decoded: "Generator[Frame]", upscaler: "Upscaler | OnDevice", scale: float | Size
) -> "Generator[Upscaled]":
    """(frame, its image upscaled) for all frames; errors name the clip."""

    def upscale(frame: "Frame") -> Any:
        image: Any = frame.image
        try:
            return upscaler(image, scale)
        except EspanError as error:
            raise type(error)(f"{clip.path}: {error}") from error

    return upscale_in_order(upscale, decoded, upscaler.device)
