"""Writes the finished file: the new video and copies of the input's other streams."""

import heapq
import logging
from collections.abc import Iterator
from pathlib import Path

import av
from av.codec.context import Flags
from av.error import FFmpegError
from av.packet import Packet

from espan.errors import InputError, OutputError
from espan.video import scheduling
from espan.video.cutting import APART, trim
from espan.video.encoding import Encoding
from espan.video.segments import Segments
from espan.video.source import Clip, opened, reason
from espan.video.streams import add_streams, kept, trial

log = logging.getLogger("espan")

_OPTIONS = {"mp4": {"movflags": "faststart"}, "mov": {"movflags": "faststart"}}


def container_for(path: Path) -> "av.container.OutputContainer":
    """An output container in the format of the path's suffix; used for questions, not written."""
    try:
        container = av.open(f"file:{path}", "w")
    except (FFmpegError, ValueError) as error:
        raise InputError(
            f"{path}: not the suffix of a video container; try .mp4, .mkv, .mov or .webm"
        ) from error
    if container.default_video_codec == "none" or container.format.name.startswith("image2"):
        raise InputError(
            f"{path}: {container.format.name} cannot hold a video; try .mp4, .mkv, .mov or .webm"
        )
    return container


def check(format: str, clip: Clip, encoding: Encoding) -> tuple[list[int], int]:
    """(indices of other streams that `format` can hold, flags that the encoder needs).

    OutputError if it cannot hold the video itself.
    """
    with opened(clip.path) as source, trial(format) as container:
        others = kept(source, clip, format)
        try:
            streams = _started(container, source, clip, encoding, others)
        except (FFmpegError, ValueError) as error:
            said = reason(error) if isinstance(error, FFmpegError) else str(error)
            what = f"{encoding.codec} of {encoding.width} x {encoding.height} in {encoding.format}"
            raise OutputError(f"{format} cannot hold {what}: {said}") from error
        flags = streams[clip.index].codec_context.flags
        return others, int(flags) & int(Flags.global_header)


def write(
    path: Path, format: str, clip: Clip, encoding: Encoding, others: list[int], segments: Segments
) -> None:
    """Writes the file at `path`, in the container `format`."""
    options = _OPTIONS.get(format, {})
    with (
        opened(clip.path) as source,
        av.open(f"file:{path}", "w", format=format, container_options=options) as container,
    ):
        streams = _started(container, source, clip, encoding, others)
        video = _video_packets(segments, clip, streams[clip.index])
        copied = _copied_packets(source, clip, streams)
        for _, packet in heapq.merge(video, copied, key=lambda each: each[0]):
            container.mux(packet)


def _started(container, *layout) -> dict:
    """The streams of `add_streams`, with the header written, which also opens the encoder."""
    streams = add_streams(container, *layout)
    with scheduling.preserved():
        container.start_encoding()
    return streams


def _video_packets(segments: Segments, clip: Clip, stream) -> Iterator[tuple]:
    """(time, packet) for every frame of the video."""
    order = list(segments.times())
    for coded, dts in zip(segments.packets(), decoding_times(order), strict=True):
        packet = Packet(coded.data)
        packet.pts, packet.dts, packet.duration = coded.pts, dts, coded.duration
        packet.time_base, packet.is_keyframe = clip.time_base, coded.keyframe
        packet.stream = stream
        yield dts * clip.time_base, packet


def decoding_times(order: list[int]) -> list[int]:
    """Decoding times of frames, from their display times in decoding order.

    They increase strictly, and no frame is decoded after it is shown. Without reordering they equal
    the display times.
    """
    shown = sorted(order)
    rank = {pts: place for place, pts in enumerate(shown)}
    late = max((place - rank[pts] for place, pts in enumerate(order)), default=0)
    step = shown[1] - shown[0] if len(shown) > 1 else 1
    before = [shown[0] - step * (late - place) for place in range(late)]
    return before + shown[: len(shown) - late]


def _copied_packets(source, clip: Clip, streams: dict) -> Iterator[tuple]:
    """(time, packet) for every packet of the other streams, in file order."""
    wanted = [
        each
        for each in source.streams
        if each.index in streams
        and each.index != clip.index
        and streams[each.index].type != "attachment"  # written with the header
    ]
    if not wanted:
        return
    shift = clip.start * clip.time_base
    if clip.seek_to is not None:
        early = round(APART / clip.time_base)
        source.seek(clip.seek_to - early, stream=source.streams[clip.index])
    packets = source.demux(wanted)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError as error:
            log.warning("%s: other streams are cut off: %s", clip.path, reason(error))
            return
        if packet.pts is None and packet.dts is None:
            if not packet.size:  # marks the end of a stream
                continue
            packet.pts = packet.dts = moved = 0  # a cover
        else:
            moved = round(shift / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - moved
        packet.dts = None if packet.dts is None else packet.dts - moved
        time = (packet.pts if packet.dts is None else packet.dts) * packet.time_base
        if clip.length is not None and time > clip.length * clip.time_base + APART:
            return
        if clip.is_part and not trim(packet, clip):
            continue
        packet.stream = streams[packet.stream.index]
        yield time, packet
