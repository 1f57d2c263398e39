"""`upscale_video`, and `video_frames`, its iterator. Importing it does not need PyAV."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espan import __version__
from espan.errors import EspanError, InputError, LimitError, OutputError
from espan.images import files
from espan.system.atomic import remove_leftovers, whole_file
from espan.video.options import Options, need_pyav

if TYPE_CHECKING:
    import numpy as np

    from espan.upscaler import Upscaler
    from espan.video.source import Clip

log = logging.getLogger("espan")

# Frames between two points from which an interrupted run goes on.
SEGMENT = 240
# Frames computed at once on a CPU.
WORKERS = 4


@dataclass(frozen=True)
class Report:
    """What became of a video: its frames, and their size."""

    frames: int
    width: int
    height: int


def upscale_video(
    path: str | Path,
    output: str | Path,
    scale: float = 4,
    *,
    model: Any = None,
    device: Any = "auto",
    dtype: Any = "auto",
    backend: str = "auto",
    tile: Any = "auto",
    limits: files.Limits = files.LIMITS,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    on_error: str = "stop",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes the video at `path`, made `scale` times larger, to `output`; returns its path.

    All other streams, chapters, metadata and times are kept; the suffix of `output` names the
    container. model to limits: as for `Upscaler`. codec, preset, pix_fmt: as FFmpeg names them;
    crf: quality, less is better. on_error, for a frame that cannot be decoded: "stop" raises,
    "repeat" shows its neighbour. `progress(done, total)` counts frames. Interrupted work goes on
    from its last whole segment of 240 frames if called again with the same settings.

    Raises InputError for the input and the arguments, OutputError for what cannot be written.
    """
    upscaler, identity = _prepared(model, scale, device, dtype, backend, tile, limits)
    options = Options(codec, crf, preset, pix_fmt, on_error)
    convert(Path(path), Path(output), upscaler, scale, identity, options, progress)
    return Path(output)


def video_frames(
    path: str | Path,
    scale: float = 4,
    *,
    model: Any = None,
    device: Any = "auto",
    dtype: Any = "auto",
    backend: str = "auto",
    tile: Any = "auto",
    limits: files.Limits = files.LIMITS,
    on_error: str = "stop",
) -> "Iterator[tuple[float, np.ndarray]]":
    """(seconds, picture) of every frame of a video, upright and upscaled, in order of time.

    picture: (H, W, 3) RGB, uint8, or uint16 from 0 to 65535 for videos of more than 8 bits. The
    next frames are computed while one is used. Arguments and errors as for `upscale_video`.
    """
    upscaler, _ = _prepared(model, scale, device, dtype, backend, tile, limits)
    need_pyav()
    from espan.video import frames

    clip = _looked_at(Path(path), scale, upscaler.limits)
    decoded = frames.read(clip, Options(on_error=on_error).on_error)
    with closing(_enlarged(clip, decoded, upscaler, scale)) as pictures:
        for frame, picture in pictures:
            yield float(frame.pts * clip.time_base), picture


def identity_of(model: Any, scale: float, *settings: Any) -> list:
    """What makes the frames of two runs the same: a network's weights, and settings."""
    from espan.checkpoints.weights import load
    from espan.networks.models import Network
    from espan.upscaler import model_for

    net = model if isinstance(model, Network) else load(model or model_for(scale))
    digest = hashlib.sha256()
    for name, weights in sorted(net.state_dict().items()):
        digest.update(name.encode() + weights.detach().float().cpu().numpy().tobytes())
    return [digest.hexdigest(), *map(str, settings)]


def _prepared(model, scale, device, dtype, backend, tile, limits) -> "tuple[Upscaler, list]":
    from espan.upscaler import Upscaler, check_scale, model_for

    if model is None:
        model = model_for(scale)
    how = {"device": device, "dtype": dtype, "backend": backend, "tile": tile}
    upscaler = Upscaler(model, **how, limits=limits)
    check_scale(scale, upscaler.scale)
    return upscaler, identity_of(model, scale, device, dtype, backend, tile)


def convert(
    path: Path,
    output: Path,
    upscaler: "Upscaler",
    scale: float,
    identity: list,
    options: Options,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """`upscale_video` with the network held ready; `identity`: of `identity_of`."""
    need_pyav()
    import av

    from espan.video import encoding, frames, mux
    from espan.video.segments import Segments, alone

    clip = _looked_at(path, scale, upscaler.limits)
    if output.exists() and output.samefile(path):
        raise InputError(f"{output}: would replace its input")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: {output.parent}: no such folder")
    container = mux.container_for(output)
    format = container.format.name
    chosen = encoding.choose(container, clip, scale, options)
    others, flags = mux.check(format, clip, chosen)
    remove_leftovers(output.parent)  # of runs that were killed as they put a file together
    facts = path.stat()
    with alone(output):
        segments = Segments(
            output,
            {
                "input": [str(path.resolve()), facts.st_size, facts.st_mtime_ns],
                "scale": scale,
                "network": identity,
                "encoding": [chosen, flags, options.on_error, SEGMENT],
                "made by": [__version__, av.__version__, str(av.library_versions)],
            },
        )
        done = segments.frames
        if done:
            log.info("%s: goes on after frame %d", output, done)
        decoded = frames.read(clip, options.on_error, skip=done)
        with closing(_enlarged(clip, decoded, upscaler, scale)) as pictures:
            counted = _told(pictures, done, clip.total, progress)
            while (first := next(counted, None)) is not None:
                part = chain([first], islice(counted, SEGMENT - 1))
                segments.write(encoding.encoded(part, chosen, flags))
        with whole_file(output) as temporary:
            mux.write(temporary, format, clip, chosen, others, segments)
        segments.remove()
        return Report(segments.frames, chosen.width, chosen.height)


def _looked_at(path: Path, scale: float, limits: files.Limits) -> "Clip":
    """The clip in a file, of a size that the limits allow."""
    from espan.video import source

    clip = source.look(path)
    try:
        files.check_size((clip.width, clip.height), scale, limits.max_input, limits.max_output)
    except LimitError as error:
        raise LimitError(f"{path}: {error}") from error
    return clip


def _enlarged(clip, decoded: Iterator, upscaler: "Upscaler", scale: float) -> Iterator[tuple]:
    """(frame, its picture upscaled) of all frames; others are decoded meanwhile."""
    import torch

    from espan.video.ahead import ahead, in_order

    cores = torch.get_num_threads()
    # On a CPU frames share the cores: two halves wait less for each other than a whole for its
    # parts. A GPU copies one frame while it computes another.
    workers = 2 if upscaler.device.type == "cuda" else min(cores, WORKERS)

    def enlarge(frame) -> "np.ndarray":
        try:
            return upscaler(frame.picture, scale)
        except EspanError as error:
            raise type(error)(f"{clip.path}: {error}") from error

    def share() -> None:
        torch.set_num_threads(max(1, cores // workers))  # of this thread, and of new ones

    try:
        yield from in_order(enlarge, ahead(decoded), workers, share)
    finally:
        torch.set_num_threads(cores)


def _told(pictures: Iterator, done: int, total: int, progress) -> Iterator:
    """The pictures, each counted as it comes."""
    for number, picture in enumerate(pictures, done + 1):
        if progress is not None:
            progress(number, max(total, number))
        yield picture
