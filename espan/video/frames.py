"""Decodes the frames of a clip in display order, and repeats or refuses damaged ones."""

import heapq
import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from av.error import FFmpegError

from espan.errors import InputError
from espan.system.ahead import ahead
from espan.system.pinned import Empty
from espan.video.colour import Pixels
from espan.video.cutting import packets_from, part
from espan.video.packed import LAYOUTS, Packed
from espan.video.source import Clip, opened, reason

log = logging.getLogger("espan")

# Seconds that may be missing at the end: headers count a long last frame and round differently.
MISSING = 1.0


class Frame(NamedTuple):
    """pts and duration in the clip's time base; image (H, W, 3) RGB in uint8 or uint16, upright.

    Or the planes of a frame as they were decoded.
    """

    pts: int
    duration: int
    image: np.ndarray | Packed


def read(
    clip: Clip, on_error: str = "stop", skip: int = 0, empty: Empty | None = None
) -> Generator[Frame]:
    """The frames of a clip after the first `skip`, with strictly increasing times.

    on_error: "stop" raises an InputError that names the first damaged frame. "repeat" uses the
    decoder's result for it; if there is none, it repeats the frame before (the one after, at the
    beginning) and logs a warning. empty: 4:2:0 frames are packed into memory from it instead of
    converted to RGB.
    """
    pixels = Pixels(clip.colour)

    def image_of(frame) -> np.ndarray | Packed:
        usual = clip.turn.size(frame.width, frame.height) == (clip.width, clip.height)
        if empty and usual and frame.format.name in LAYOUTS:
            return Packed.of(frame, empty)
        return clip.turn(pixels.rgb(frame))

    shown: Any = None
    image: Any = None
    # Decoding goes on while frames are converted.
    with closing(ahead(_decoded(clip, on_error, skip), depth=1)) as decoded:
        for pts, duration, frame in decoded:
            if frame is not shown:
                shown, image = frame, image_of(frame)
            yield Frame(pts, duration, image)


def _decoded(clip: Clip, on_error: str, skip: int) -> Generator[tuple]:
    """(pts, duration, PyAV's frame) for each frame of `read`."""
    frames = _in_time(clip, on_error)
    yield from islice(part(frames, clip) if clip.is_part else frames, skip, None)


def _in_time(clip: Clip, on_error: str) -> Iterator[tuple]:
    """(pts, duration, PyAV's frame) for all frames in the file; pts increase strictly."""
    in_order = _in_order(clip, strict=on_error == "stop")
    last: int | None = None
    for number, (pts, duration, frame, why) in enumerate(in_order):
        if why:
            _damaged(clip, number, pts, why, on_error)
        if frame is None:
            return
        pts -= clip.start
        last = pts if last is None else max(pts, last + 1)
        yield last, duration, frame
    _check_end(clip, last, on_error)


def _check_end(clip: Clip, last: int | None, on_error: str) -> None:
    """Raises or warns if more than MISSING seconds of the length in the header are missing."""
    if clip.seconds is None or last is None:
        return
    end = float(last * clip.time_base)
    if clip.seconds - end <= max(MISSING, float(5 / clip.rate)):
        return
    cut = float(clip.cut * clip.time_base)
    message = f"{clip.path}: truncated: last frame at {cut + end:.1f} of {cut + clip.seconds:.1f} s"
    if on_error == "stop":
        raise InputError(message)
    log.warning("%s", message)


def _damaged(clip: Clip, number: int, pts: int | None, why: str, on_error: str) -> None:
    if pts is None:
        which = f"frame {number}" + " of the part" * (clip.seek_to is not None)
        problem, then = f"cannot be read from {which} on: {why}", "the result ends there"
    else:
        at = float((pts - clip.start + clip.cut) * clip.time_base)
        # After seeking, the number is unknown.
        which = f"frame {number} ({at:.3f} s)" if clip.seek_to is None else f"frame at {at:.3f} s"
        problem, then = f"{which} cannot be decoded: {why}", "a neighbouring frame is repeated"
    if on_error == "stop":
        raise InputError(f"{clip.path}: {problem}")
    log.warning("%s: %s; %s", clip.path, problem, then)


def _in_order(clip: Clip, strict: bool) -> Iterator[tuple]:
    """(pts, duration, frame, error text or "") in display order. A lost frame is replaced by its
    neighbour; pts and frame are None if nothing can be read from there on.
    """
    step = max(1, round(1 / (clip.rate * clip.time_base)))
    shown, pts, damage = None, None, ""
    sent: list[tuple[int, int]] = []  # (pts, duration) of packets without a decoded frame yet
    broken: set[int] = set()
    with opened(clip.path, clip.hwaccel) as container:
        stream = container.streams[clip.index]
        if strict:  # otherwise decoders conceal damage without an error
            stream.codec_context.options = {"err_detect": "explode"}
        packets: Iterator[Any] = container.demux(stream)
        if clip.seek_to is not None:
            packets = packets_from(container, stream, clip.seek_to)
        ends = ""
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                ends = reason(error)
                break
            if packet is None:
                break
            at = packet.dts if packet.pts is None else packet.pts
            if at is not None:
                heapq.heappush(sent, (at, packet.duration or 0))
            try:
                frames = packet.decode()
            except FFmpegError as error:
                damage = reason(error)
                if at is not None:
                    broken.add(at)
                continue
            for frame in frames:
                pts = frame.pts if frame.pts is not None else 0 if pts is None else pts + step
                while sent and sent[0][0] <= pts:
                    gone = heapq.heappop(sent)
                    # Some packets hold no frame, but after damage a missing frame is a lost one.
                    if damage and gone[0] < pts:
                        yield *gone, shown or frame, damage
                if pts in broken:  # decoded despite the error
                    yield pts, frame.duration, shown or frame, damage
                else:
                    yield pts, frame.duration, frame, ""
                    shown = frame
                    if damage and pts > max(broken, default=pts - 1):  # the damage ends here
                        damage = ""
                        broken.clear()
        if damage and shown:
            for gone in sorted(sent):
                yield *gone, shown, damage
        if ends:
            yield None, 0, None, ends
