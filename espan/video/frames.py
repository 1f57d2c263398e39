"""The frames of a clip in order of time, and what becomes of those that are damaged."""

import heapq
import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from av.error import FFmpegError

from espan.errors import InputError
from espan.video.colour import Pixels
from espan.video.source import Clip, opened, reason

log = logging.getLogger("espan")


class Frame(NamedTuple):
    """pts and duration in the clip's time base; picture (H, W, 3) RGB in uint8 or uint16."""

    pts: int
    duration: int
    picture: np.ndarray


class Lost(NamedTuple):
    """A frame that could not be decoded; pts None: nothing can be read from here on."""

    pts: int | None
    duration: int
    why: str


def read(clip: Clip, on_error: str = "stop", skip: int = 0) -> Iterator[Frame]:
    """The frames of a clip but the first `skip`, upright; their times rise strictly.

    on_error: at a frame that cannot be decoded "stop" raises an InputError that names it, "repeat"
    gives the frame before it again (before the first: the one after) and logs a warning.
    """
    pixels, last = Pixels(clip.colour), None
    shown = picture = None
    for number, (pts, duration, frame, why) in enumerate(_in_order(clip)):
        if why:
            _damaged(clip, number, pts, why, on_error)
        if frame is None:
            return
        pts = pts - clip.start
        last = pts if last is None else max(pts, last + 1)
        if number < skip:
            continue
        if frame is not shown:
            shown, picture = frame, clip.turn(pixels.rgb(frame))
        yield Frame(last, duration, picture)


def _damaged(clip: Clip, number: int, pts: int | None, why: str, on_error: str) -> None:
    if pts is None:
        told, then = f"cannot be read on from frame {number}: {why}", "the video ends there"
    else:
        at = float((pts - clip.start) * clip.time_base)
        told, then = f"frame {number} ({at:.3f} s) cannot be decoded: {why}", "another is repeated"
    if on_error == "stop":
        raise InputError(f"{clip.path}: {told}")
    log.warning("%s: %s; %s", clip.path, told, then)


def _in_order(clip: Clip) -> Iterator[tuple]:
    """(pts, duration, frame, what is wrong) by time; what is lost comes with a neighbour's frame,
    or, where the file ends, with None.
    """
    lost: list[Lost] = []
    shown, pts = None, None
    step = max(1, round(1 / (clip.rate * clip.time_base)))
    with opened(clip.path) as container:
        for each in _attempts(container, container.streams[clip.index]):
            if isinstance(each, Lost):
                heapq.heappush(lost, (each.pts is None, each))
                continue
            pts = each.pts if each.pts is not None else 0 if pts is None else pts + step
            while lost and lost[0][1].pts < pts:
                gone = heapq.heappop(lost)[1]
                yield gone.pts, gone.duration, shown or each, gone.why
            yield pts, each.duration, each, ""
            shown = each
    for broken, gone in sorted(lost):
        yield gone.pts, gone.duration, None if broken else shown, gone.why


def _attempts(container, stream) -> Iterator:
    """What comes of every packet: frames, and what of them is Lost."""
    # Else decoders patch over damage and say nothing.
    stream.codec_context.options = {"err_detect": "explode"}
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            yield Lost(None, 0, reason(error))
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except FFmpegError as error:
            pts = packet.dts if packet.pts is None else packet.pts
            if pts is not None:
                yield Lost(pts, packet.duration or 0, reason(error))
