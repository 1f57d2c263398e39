"""What is known of a video file before the work."""

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
from espan.video.colour import Colour
from espan.video.turn import Turn

log = logging.getLogger("espan")

# Demuxers that read one file: a playlist under a video's name would have others opened.
_FORMATS = (
    *("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "nut"),
    *("h264", "hevc", "m4v", "mpegvideo", "obu", "ivf", "yuv4mpegpipe", "dv", "rm", "gxf", "wtv"),
)
# What hardware gives, and what has the same pixels in separate planes, as encoders want them.
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le", "p016le": "yuv420p12le"}


@dataclass(frozen=True)
class Clip:
    """What is known of a video file from its header and its first frame.

    width, height, sar: of a frame upright. start: the timestamp that becomes 0, in time_base.
    total: frames, by the header's word, 0 where it does not tell. seconds: how long the stream
    itself is said to be, or None. hwaccel: the hardware that decodes it, None is the CPU. guess:
    which colour matrix is assumed where the file names none.

    Of a part of the file start, total and seconds are the part's. cut: ticks of the file before it;
    length: its ticks, None to the end; sought: where to seek, None reads from the beginning.
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
    cut: int = 0
    length: int | None = None
    sought: int | None = None

    @property
    def is_part(self) -> bool:
        return self.cut > 0 or self.length is not None


@contextmanager
def opened(path: Path, hwaccel: str | None = None) -> Iterator["av.container.InputContainer"]:
    """The file, open; InputError naming it for what cannot be opened.

    hwaccel: the hardware that decodes it, and nothing else if it cannot.
    """
    accelerator = HWAccel(hwaccel, allow_software_fallback=False) if hwaccel else None
    if problem := why_no_file(path):  # a FIFO would be waited for
        raise InputError(f"{path}: {problem}")
    try:
        # The prefix, as a colon in a name is no protocol.
        only = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}
        container = av.open(
            f"file:{path}", container_options=only, metadata_errors="replace", hwaccel=accelerator
        )
    except (FFmpegError, OSError, ValueError, RuntimeError) as error:
        said = reason(error)
        if accelerator and _opens(path):
            raise InputError(f"{path}: hwaccel: {hwaccel} cannot decode it here: {said}") from error
        if isinstance(error, av.error.ArgumentError):
            said = f"no video in a known format ({', '.join(_FORMATS)})"
        elif path.stat().st_size == 0:
            said = "empty file"
        raise InputError(f"{path}: {said}") from error
    with container:
        yield container


def reason(error: Exception) -> str:
    """What FFmpeg said of an error, in one line."""
    said = (getattr(error, "log", None) or (0, None))[1]
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    detail = f" ({said[2].strip()})" if said and said[2].strip() else ""
    return f"{text[:1].lower()}{text[1:]}{detail}"


def _opens(path: Path) -> bool:
    """Whether the CPU can decode the file."""
    try:
        with opened(path):
            return True
    except InputError:
        return False


def look(path: str | Path, hwaccel: str | None = None) -> Clip:
    """The Clip of a file, its first frame decoded; InputError if it has no video to decode."""
    path = Path(path)
    with opened(path, hwaccel) as container:
        stream = main_stream(container)
        if stream is None:
            raise InputError(f"{path}: no video stream")
        if stream.codec_context is None:
            raise InputError(f"{path}: no decoder for its video stream")
        frame = _first(container, stream)
        if frame is None:
            raise InputError(f"{path}: no frame in it could be decoded")
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
        )
        if frame.interlaced_frame:
            log.warning("%s: interlaced; lines of two times are upscaled as one picture", path)
        return clip


def main_stream(container):
    """The stream that is the video: no cover picture."""
    best = container.streams.best("video")
    if best is None or best.disposition & Disposition.attached_pic:
        return None
    return best


def is_hidden(stream) -> bool:
    """Whether the demuxer itself leaves it out: the titles of an MP4's chapters."""
    return stream.discard == Discard.all


def _estimate(container, stream, rate) -> int:
    if stream.duration:
        return round(stream.duration * stream.time_base * rate)
    return round(container.duration * Fraction(1, av.time_base) * rate) if container.duration else 0


def _seconds(stream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska has it as text: 00:00:02.400000000
    told = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(told[1]) * 3600 + int(told[2]) * 60 + float(told[3]) if told else None


def _first(container, stream):
    """The first frame that can be decoded, or None."""
    with suppress(FFmpegError):
        for packet in container.demux(stream):
            with suppress(FFmpegError):
                for frame in packet.decode():
                    return frame
    return None
