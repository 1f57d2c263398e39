"""Opens video files and reads their properties."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError
from av.stream import Discard, Disposition

from espan.errors import InputError
from espan.system.paths import why_no_file
from espan.video.colour import CENTRE, Colour, siting
from espan.video.packed import LAYOUTS
from espan.video.turn import Turn

log = logging.getLogger("espan")

# Demuxers that read a single file: a playlist named like a video would open other files.
_FORMATS = (
    *("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "nut"),
    *("h264", "hevc", "m4v", "mpegvideo", "obu", "ivf", "yuv4mpegpipe", "dv", "rm", "gxf", "wtv"),
)
# Pixel formats of hardware decoders, and the planar formats with the same values for encoders.
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le", "p016le": "yuv420p12le"}


@dataclass(frozen=True)
class Clip:
    """Properties of a video file, from its header and its first frame.

    width, height, sar: of an upright frame. start: the timestamp that becomes 0, in time_base.
    total: number of frames, 0 if the header does not give it. seconds: length of the video stream
    in the header, or None. hwaccel: the hardware decoder, None for the CPU. guess: text on the
    assumed colour matrix, or None if the file gives one. siting: see `colour.siting`.

    For a part of the file, start, total and seconds describe the part. cut: ticks before the part;
    length: its ticks, None for up to the end; seek_to: where to seek, None to read from the
    beginning.
    """

    path: Path
    index: int
    width: int
    height: int
    sar: Fraction
    turn: Turn
    format: str
    colour: Colour
    rate: Fraction
    time_base: Fraction
    start: int
    total: int
    seconds: float | None
    hwaccel: str | None = None
    guess: str | None = None
    siting: tuple[float, float] = CENTRE
    cut: int = 0
    length: int | None = None
    seek_to: int | None = None

    @property
    def is_part(self) -> bool:
        return self.cut > 0 or self.length is not None


@contextmanager
def opened(path: Path, hwaccel: str | None = None) -> Iterator["av.container.InputContainer"]:
    """The opened file; InputError that names it if it cannot be opened.

    hwaccel: the hardware decoder, without a fallback to the CPU.
    """
    accelerator = HWAccel(hwaccel, allow_software_fallback=False) if hwaccel else None
    if problem := why_no_file(path):  # opening a FIFO would block
        raise InputError(f"{path}: {problem}")
    try:
        # With the prefix, a colon in the name does not select a protocol.
        only = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}
        container = av.open(
            f"file:{path}", container_options=only, metadata_errors="replace", hwaccel=accelerator
        )
    except (FFmpegError, OSError, ValueError, RuntimeError) as error:
        problem = reason(error)
        if accelerator and _opens(path):
            raise InputError(f"{path}: hwaccel: {hwaccel} cannot decode it: {problem}") from error
        if isinstance(error, av.error.ArgumentError):
            problem = f"not a video in a known format ({', '.join(_FORMATS)})"
        elif path.stat().st_size == 0:
            problem = "empty file"
        raise InputError(f"{path}: {problem}") from error
    with container:
        yield container


def reason(error: Exception) -> str:
    """FFmpeg's message for an error, in one line."""
    logged = (getattr(error, "log", None) or (0, None))[1]
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    detail = f" ({logged[2].strip()})" if logged and logged[2].strip() else ""
    return f"{text[:1].lower()}{text[1:]}{detail}"


def _opens(path: Path) -> bool:
    """Whether the file opens without hardware."""
    try:
        with opened(path):
            return True
    except InputError:
        return False


def probe(path: str | Path, hwaccel: str | None = None) -> Clip:
    """The Clip of a file, from its header and first frame; InputError if no frame decodes."""
    path = Path(path)
    with opened(path, hwaccel) as container:
        stream = main_stream(container)
        if stream is None:
            raise InputError(f"{path}: no video stream")
        if stream.codec_context is None:
            raise InputError(f"{path}: FFmpeg has no decoder for its video stream")
        frame = _first(container, stream)
        if frame is None:
            raise InputError(f"{path}: no frame could be decoded")
        colour, guess = Colour.of(frame, path)
        turn = Turn.of(frame)
        width, height = turn.size(frame.width, frame.height)
        sar = stream.sample_aspect_ratio or Fraction(1)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        start = max(container.start_time or 0, 0) * Fraction(1, av.time_base)
        clip = Clip(
            path=path,
            index=stream.index,
            width=width,
            height=height,
            sar=1 / sar if turn.quarters % 2 else sar,
            turn=turn,
            format=_PLANAR.get(frame.format.name, frame.format.name),
            colour=colour,
            rate=Fraction(rate),
            time_base=Fraction(stream.time_base),
            start=round(start / stream.time_base),
            total=stream.frames or _estimate(container, stream, rate),
            seconds=_seconds(stream),
            hwaccel=hwaccel,
            guess=guess,
            siting=siting(frame) if frame.format.name in LAYOUTS else CENTRE,
        )
        if frame.interlaced_frame:
            log.warning(
                "%s: interlaced: both fields are upscaled as one image; deinterlace it first", path
            )
        return clip


def main_stream(container):
    """The video stream, or None; a cover image does not count."""
    best = container.streams.best("video")
    if best is None or best.disposition & Disposition.attached_pic:
        return None
    return best


def is_hidden(stream) -> bool:
    """Whether the demuxer skips the stream, as for the chapter titles of an MP4."""
    return stream.discard == Discard.all


def _estimate(container, stream, rate) -> int:
    if stream.duration:
        return round(stream.duration * stream.time_base * rate)
    return round(container.duration * Fraction(1, av.time_base) * rate) if container.duration else 0


def _seconds(stream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska stores it as text: 00:00:02.400000000
    text = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(text[1]) * 3600 + int(text[2]) * 60 + float(text[3]) if text else None


def _first(container, stream):
    """The first frame that can be decoded, or None."""
    with suppress(FFmpegError):
        for packet in container.demux(stream):
            with suppress(FFmpegError):
                for frame in packet.decode():
                    return frame
    return None
