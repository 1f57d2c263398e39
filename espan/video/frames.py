"""The frames of a clip in order of time, and what becomes of those that are damaged."""

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
from espan.video.colour import Pixels
from espan.video.cutting import packets_from, part
from espan.video.source import Clip, opened, reason

log = logging.getLogger("espan")

# Seconds that a header may promise more than there is: a last frame that stays, other roundings.
MISSING = 1.0


class Frame(NamedTuple):
    """pts and duration in the clip's time base; picture (H, W, 3) RGB in uint8 or uint16."""

    pts: int
    duration: int
    picture: np.ndarray


def read(clip: Clip, on_error: str = "stop", skip: int = 0) -> Generator[Frame]:
    """The frames of a clip but the first `skip`, upright; their times rise strictly.

    on_error: "stop" raises an InputError that names the first damaged frame. "repeat" takes what
    the decoder makes of it, and where that is nothing the frame before (before the first: the one
    after) and logs a warning.
    """
    pixels = Pixels(clip.colour)
    shown, picture = None, np.empty(0)
    # Decoding goes on while frames are converted.
    with closing(ahead(_decoded(clip, on_error, skip), depth=1)) as decoded:
        for pts, duration, frame in decoded:
            if frame is not shown:
                shown, picture = frame, clip.turn(pixels.rgb(frame))
            yield Frame(pts, duration, picture)


def _decoded(clip: Clip, on_error: str, skip: int) -> Generator[tuple]:
    """(pts, duration, PyAV's frame) of the frames of `read`."""
    frames = _in_time(clip, on_error)
    yield from islice(part(frames, clip) if clip.is_part else frames, skip, None)


def _in_time(clip: Clip, on_error: str) -> Iterator[tuple]:
    """(pts, duration, PyAV's frame) of all frames that are read; pts rise strictly."""
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
    """Whether the file has all of the video that its header speaks of, but for MISSING seconds."""
    if clip.seconds is None or last is None:
        return
    end = float(last * clip.time_base)
    if clip.seconds - end <= max(MISSING, float(5 / clip.rate)):
        return
    cut = float(clip.cut * clip.time_base)
    told = (
        f"{clip.path}: cut off: its last frame is at {cut + end:.1f} of {cut + clip.seconds:.1f} s"
    )
    if on_error == "stop":
        raise InputError(told)
    log.warning("%s", told)


def _damaged(clip: Clip, number: int, pts: int | None, why: str, on_error: str) -> None:
    if pts is None:
        which = f"frame {number}" + " of the part" * (clip.sought is not None)
        told, then = f"cannot be read on from {which}: {why}", "the video ends there"
    else:
        at = float((pts - clip.start + clip.cut) * clip.time_base)
        # After seeking, nothing tells the number.
        which = f"frame {number} ({at:.3f} s)" if clip.sought is None else f"frame at {at:.3f} s"
        told, then = f"{which} cannot be decoded: {why}", "another is repeated"
    if on_error == "stop":
        raise InputError(f"{clip.path}: {told}")
    log.warning("%s: %s; %s", clip.path, told, then)


def _in_order(clip: Clip, strict: bool) -> Iterator[tuple]:
    """(pts, duration, frame, what is wrong) by time. What is lost comes with a neighbour's frame,
    and with None for pts and frame where nothing can be read from there on.
    """
    step = max(1, round(1 / (clip.rate * clip.time_base)))
    shown, pts, damage = None, None, ""
    sent: list[tuple[int, int]] = []  # (pts, duration) of what has not come back
    broken: set[int] = set()
    with opened(clip.path, clip.hwaccel) as container:
        stream = container.streams[clip.index]
        if strict:  # else decoders patch over damage as well as they can, and say nothing
            stream.codec_context.options = {"err_detect": "explode"}
        packets: Iterator[Any] = container.demux(stream)  # whose frames are of video
        if clip.sought is not None:
            packets = packets_from(container, stream, clip.sought)
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
                    # Some packets are no picture; but damage takes others with it that were one.
                    if damage and gone[0] < pts:
                        yield *gone, shown or frame, damage
                if pts in broken:  # it came all the same
                    yield pts, frame.duration, shown or frame, damage
                else:
                    yield pts, frame.duration, frame, ""
                    shown = frame
                    if damage and pts > max(broken, default=pts - 1):  # it is over
                        damage = ""
                        broken.clear()
        if damage and shown:
            for gone in sorted(sent):
                yield *gone, shown, damage
        if ends:
            yield None, 0, None, ends
