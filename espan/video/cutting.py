"""A part of a clip: its frames, its packets of the other streams, and where to seek for them."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

from av.error import FFmpegError

from espan.errors import InputError
from espan.video.options import Options
from espan.video.source import Clip, opened

# Seconds before the part at which to search for a keyframe, nearest first: some formats seek to
# any packet, and the next keyframe may be after the start.
_SEEK_BACK = (0, 2, 10, 60)
# Seconds by which a file may interleave packets of the same time.
APART = 10


def cut(clip: Clip, options: Options) -> Clip:
    """The part of the clip that `options` select; InputError for times beyond its end.

    If the file does not give the length of the video, `part` detects a start beyond its end.
    """
    start, end = options.part()
    if start == 0 and end is None:
        return clip
    whole = clip.seconds
    if whole is not None:
        if start >= whole:
            raise _beyond(clip, "start", start)
        # Headers round the length, so accept one frame more.
        if options.end is not None and end is not None and end > whole + 1 / clip.rate:
            raise _beyond(clip, "end", end)
    first = round(Fraction(start) / clip.time_base)
    length = None if end is None else max(round(Fraction(end) / clip.time_base) - first, 1)
    known = [each - start for each in (whole, end) if each is not None]
    left = max(clip.total - round(start * clip.rate), 0)  # of a count without a length
    moved = replace(
        clip,
        start=clip.start + first,
        cut=first,
        length=length,
        seconds=None if whole is None else whole - start,
        total=max(round(min(known) * clip.rate), 1) if known else left,
    )
    return replace(moved, seek_to=_seek_target(moved)) if first else moved


def _beyond(clip: Clip, name: str, time: float) -> InputError:
    end = "" if clip.seconds is None else f", {clip.seconds:.2f} s"
    return InputError(f"{clip.path}: {name}: {time:g} s is beyond the end of the video{end}")


def part(frames: Iterator[tuple], clip: Clip) -> Iterator[tuple]:
    """Yields the (pts, duration, frame) in the part. InputError if there are none.

    The frame that is on screen when the part starts comes first, at 0.
    """
    begun, shown = False, None
    for pts, duration, frame in frames:
        if pts > 0 and shown is not None:
            yield _trimmed(*shown, clip)
            begun, shown = True, None
        if clip.length is not None and pts >= clip.length:
            break
        if pts <= 0:
            shown = pts, duration, frame
        else:
            yield _trimmed(pts, duration, frame, clip)
            begun = True
    if shown is not None and shown[0] + max(shown[1] or 0, 1) > 0:
        yield _trimmed(*shown, clip)
    elif not begun:
        raise _beyond(replace(clip, seconds=None), "start", float(clip.cut * clip.time_base))


def _trimmed(pts: int, duration: int, frame, clip: Clip) -> tuple:
    end = pts + (duration or 0)
    if clip.length is not None:
        end = min(end, clip.length)
    pts = max(pts, 0)
    return pts, max(end - pts, 0), frame


def packets_from(container, stream, seek_to: int) -> Iterator:
    """The packets after seeking, from the first keyframe on, without frames shown before it.

    Such frames depend on frames that were not read, and no frame after the keyframe needs them.
    """
    container.seek(seek_to, stream=stream)
    keyframe = None
    for packet in container.demux(stream):
        if keyframe is None and packet.is_keyframe:
            keyframe = packet.pts
        if keyframe is not None and (packet.pts is None or packet.pts >= keyframe):
            yield packet


def _seek_target(clip: Clip) -> int | None:
    """Where to seek for the start of the part, or None to read the file from its beginning."""
    with opened(clip.path) as container, suppress(FFmpegError):
        stream = container.streams[clip.index]
        for seconds in _SEEK_BACK:
            at = clip.start - round(seconds / clip.time_base)
            found = next(packets_from(container, stream, at), None)
            if found is not None and found.pts <= clip.start:
                return at
    return None


def trim(packet, clip: Clip) -> bool:
    """Limits a packet of another stream to the part; its times count from the part's start.

    Returns False if the packet is outside. Subtitles are shortened; sound is cut between packets.
    """
    base = packet.time_base
    begin = packet.dts if packet.pts is None else packet.pts
    length = None if clip.length is None else round(clip.length * clip.time_base / base)
    if length is not None and begin >= length:
        return False
    if packet.stream.type != "subtitle" or not packet.duration:
        return begin >= 0
    end = begin + packet.duration
    if length is not None:
        end = min(end, length)
    begin = max(begin, 0)
    packet.pts = packet.dts = begin
    packet.duration = max(end - begin, 0)
    return packet.duration > 0


def chapters(found: list[dict], clip: Clip) -> list[dict]:
    """The chapters inside the part, with times that count from the clip's start."""
    result = []
    for chapter in found:
        base = chapter["time_base"]
        shift = round(clip.start * clip.time_base / base)
        start, end = chapter["start"] - shift, chapter["end"] - shift
        if clip.cut:
            start = max(start, 0)
        if clip.length is not None:
            end = min(end, round(clip.length * clip.time_base / base))
        if end > start or not clip.is_part:
            result.append({**chapter, "start": start, "end": end})
    return result
