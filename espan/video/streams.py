"""The streams of a finished file: the new video, and copies of the input's other streams."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import av
from av.error import FFmpegError
from av.stream import Disposition

from espan.video.cutting import chapters
from espan.video.encoding import Encoding
from espan.video.source import Clip, is_hidden, opened

log = logging.getLogger("espan")

# Metadata that the muxer writes itself, and metadata that describes the old video only.
_NOT_KEPT = ("encoder", "major_brand", "minor_version", "compatible_brands")
_OLD_VIDEO_ONLY = ("bps", "number_of_bytes", "number_of_frames", "_statistics", "duration")
# Apple's players need another tag for H.265 in MP4 than FFmpeg's default.
_HEVC = ("libx265", "hevc_nvenc")
_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


def kept(source, clip: Clip, format: str) -> list[int]:
    """Indices of the other streams that `format` can hold; warns about each that it cannot."""
    numbers = []
    for stream in source.streams:
        if stream.index == clip.index or is_hidden(stream):
            continue
        why = _refused(stream, clip, format)
        if why is None:
            numbers.append(stream.index)
        else:
            log.warning("%s: left out %s: %s", clip.path, _name(stream), why)
    return numbers


def _name(stream) -> str:
    language = f" ({stream.language})" if stream.language else ""
    return f"stream {stream.index}, {stream.type} {getattr(stream, 'name', '') or ''}{language}"


def _refused(stream, clip: Clip, format: str) -> str | None:
    """The reason why this container format does not accept a copy of the stream, or None."""
    if stream.type == "video" and not stream.disposition & Disposition.attached_pic:
        return "a second video"
    try:
        with trial(format) as container:
            _copy(container, stream, clip)
            container.start_encoding()
    except (FFmpegError, ValueError, KeyError):
        return f"{format} cannot hold it"
    return None


@contextmanager
def trial(format: str) -> Iterator["av.container.OutputContainer"]:
    """A container whose output is discarded."""
    container = av.open(os.devnull, "w", format=format)
    try:
        yield container
    finally:
        with suppress(FFmpegError):
            container.close()


def add_streams(container, source, clip: Clip, encoding: Encoding, others: list[int]) -> dict:
    """Adds streams in the input's order, metadata and chapters to the output.

    Returns {index in the input: output stream}; the video has the key `clip.index`.
    """
    streams = {}
    for stream in source.streams:
        if stream.index == clip.index:
            new = container.add_stream(encoding.codec)
            encoding.set(new.codec_context)
            if encoding.codec in _HEVC and container.format.name in ("mp4", "mov"):
                new.codec_context.codec_tag = "hvc1"
            new.time_base = clip.time_base
            new.metadata.update(_video_metadata(stream.metadata))
            new.disposition = stream.disposition
            streams[stream.index] = new
        elif stream.index in others:
            streams[stream.index] = _copy(container, stream, clip)
    container.metadata.update(_kept_metadata(source.metadata))
    container.set_chapters(chapters(source.chapters(), clip))
    return streams


def _copy(container, stream, clip: Clip):
    if stream.disposition & Disposition.attached_pic and container.format.name == "matroska":
        # In Matroska a cover is an attachment, written with the header.
        name, kind = _COVERS[stream.codec_context.name]
        kept = stream.metadata
        name, kind = kept.get("filename", name), kept.get("mimetype", kind)
        return container.add_attachment(name, kind, _cover(clip, stream.index))
    new = container.add_stream_from_template(stream, opaque=True)
    new.metadata.update(_kept_metadata(stream.metadata))
    new.disposition = stream.disposition
    return new


def _cover(clip: Clip, index: int) -> bytes:
    with opened(clip.path) as source:
        packets = source.demux(source.streams[index])
        image = next((bytes(packet) for packet in packets if packet.size), None)
    if image is None:
        raise ValueError("a cover without an image")
    return image


def _kept_metadata(metadata: dict) -> dict:
    kept = {key: value for key, value in metadata.items() if key.lower() not in _NOT_KEPT}
    if "name" in kept:  # MP4 reads a stream's name under this key and writes its title
        kept.setdefault("title", kept.pop("name"))
    return kept


def _video_metadata(metadata: dict) -> dict:
    old = {key for key in metadata if key.lower().startswith(_OLD_VIDEO_ONLY)}
    return {key: value for key, value in _kept_metadata(metadata).items() if key not in old}
