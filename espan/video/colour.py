"""Frames to RGB and back, by the colour matrix and range in the stream's tags, or by defaults.

swscale converts frames of 8 bits. Its conversion to 16 bits maps white to 65283, so frames of more
than 8 bits are converted here, and swscale only resamples their chroma.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from espan.errors import InputError

RGB, UNSPECIFIED = 0, 2
LIMITED, FULL = 1, 2
BT709, BT601, BT2020 = 1, 6, 9
# Weights of red and blue in luma, by matrix number in H.273.
LUMA = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
# swscale uses this matrix for grey of more than 8 bits and ignores the frame's tag.
GREY = BT601
# Columns and rows from the first luma sample to the first chroma sample.
CENTRE = (0.5, 0.5)
_DEPTHS = (8, 9, 10, 12, 14, 16)
_INTERPOLATION = (
    Interpolation.LANCZOS
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
# Rows converted at a time, to bound the memory of their float values.
_ROWS = 64


@dataclass(frozen=True)
class Colour:
    """Colour tags of a frame, as H.273 numbers them; range: LIMITED or FULL."""

    primaries: int
    transfer: int
    matrix: int
    range: int

    @classmethod
    def of(cls, frame, path: Path) -> "tuple[Colour, str | None]":
        """(tags of a frame of the video at `path`, text on the assumed matrix or None).

        Untagged frames are read with limited range and with BT.601 below 720 lines, BT.709 from
        720 lines on. InputError for a matrix that cannot be converted.
        """
        primaries, transfer = int(frame.color_primaries), int(frame.color_trc)
        if frame.format.is_rgb or frame.format.has_palette:
            return cls(primaries, transfer, RGB, FULL), None
        full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
        matrix = GREY if is_grey(frame.format) else int(frame.colorspace)
        guess = None
        if matrix in (RGB, UNSPECIFIED):
            matrix = assumed_matrix(frame.height)
            name = "BT.709" if matrix == BT709 else "BT.601"
            guess = f"assuming {name}, because it has {frame.height} lines"
        if matrix not in LUMA:
            raise InputError(
                f"{path}: colour matrix {matrix} (H.273) is not supported; "
                f"supported: {', '.join(map(str, LUMA))}"
            )
        return cls(primaries, transfer, matrix, FULL if full else LIMITED), guess

    def written_as(self, format: "av.VideoFormat", height: int) -> "Colour":
        """The same colours in frames of `format`, for an input of `height` lines."""
        if format.is_rgb:
            return replace(self, matrix=RGB, range=FULL)
        if is_grey(format):
            return replace(self, matrix=GREY, range=LIMITED if self.matrix == RGB else self.range)
        if self.matrix == RGB:
            return replace(self, matrix=assumed_matrix(height), range=LIMITED)
        return self


def assumed_matrix(height: int) -> int:
    return BT709 if height >= 720 else BT601


def is_grey(format: "av.VideoFormat") -> bool:
    return len(format.components) < 3 and not format.has_palette


def depth(format: "av.VideoFormat") -> int:
    return max(each.bits for each in format.components)


def siting(frame) -> tuple[float, float]:
    """(columns, rows) from the first luma sample of a 4:2:0 frame to its first chroma sample.

    Each is 0, 0.5 or 1. PyAV does not show the frame's tag, but swscale interpolates by it: chroma
    that rises by 8 per sample tells where samples lie.
    """
    small = frame.reformat(16, 16, "gray").reformat(format="yuv420p")  # a copy with the same tags
    ramp = np.arange(64, 128, 8, dtype=np.uint8)
    for plane, rising in zip(small.planes[1:], (ramp, ramp[:, None]), strict=True):
        np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : len(ramp)] = rising
    across, down = (int(plane[8, 8]) for plane in _planes(small.reformat(format="yuv444p"))[1:])
    return round((96 - across) / 2) / 2, round((96 - down) / 2) / 2


class Pixels:
    """Converts frames of one clip to and from (H, W, 3) RGB. Not thread-safe."""

    def __init__(self, colour: Colour):
        self.colour = colour
        self._scaler = VideoReformatter()

    def rgb(self, frame) -> np.ndarray:
        """The frame in uint8, or in uint16 if it has more than 8 bits."""
        bits = depth(frame.format)
        if bits <= 8 or frame.format.has_palette:
            return self._scaled(frame, "rgb24").to_ndarray()
        planes = self._scaled(frame, _planar("gbrp" if frame.format.is_rgb else "yuv444p", bits))
        matrix, offset = from_rgb(self.colour, _supported_depth(bits))
        inverse = 65535 * np.linalg.inv(matrix)
        result = np.empty((frame.height, frame.width, 3), np.uint16)
        _affine(_planes(planes), inverse, -inverse @ offset, 65535, np.moveaxis(result, 2, 0))
        return result

    def frame(self, image: np.ndarray, format: "av.VideoFormat") -> "av.VideoFrame":
        """The image, uint8 or uint16, as a frame in `format`."""
        bits = _supported_depth(depth(format))
        # swscale rounds down when it converts to full range.
        exact = format.is_rgb or self.colour.range == LIMITED
        if image.dtype == np.uint8 and bits == 8 and exact:
            source = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), "rgb24")
            return self._scaled(source, format.name)
        name = _planar("gbrp" if format.is_rgb else "yuv444p", bits)
        planes = av.VideoFrame(image.shape[1], image.shape[0], name)
        matrix, offset = from_rgb(self.colour, bits)
        white = np.iinfo(image.dtype).max
        channels = np.moveaxis(image, 2, 0)
        _affine(channels, matrix / white, offset, (1 << bits) - 1, _planes(planes))
        return self._scaled(planes, format.name)

    def tagged(self, frame):
        """The frame, with the tags of the matrix and the range."""
        frame.colorspace, frame.color_range = self.colour.matrix, self.colour.range
        return frame

    def _scaled(self, frame, name: str) -> "av.VideoFrame":
        """The frame in another pixel format."""
        self.tagged(frame)
        rgb = [each.is_rgb or each.has_palette for each in (frame.format, av.VideoFormat(name))]
        source, target = (FULL if each else self.colour.range for each in rgb)
        result = self._scaler.reformat(
            frame,
            format=name,
            interpolation=_INTERPOLATION,
            threads=1,
            src_color_range=source,
            dst_color_range=target,
        )
        result.colorspace, result.color_range = self.colour.matrix, target
        return result


def _supported_depth(bits: int) -> int:
    return next((each for each in _DEPTHS if each >= bits), 16)


def _planar(family: str, bits: int) -> str:
    bits = _supported_depth(bits)
    return family if bits == 8 else f"{family}{bits}le"


def _planes(frame) -> list[np.ndarray]:
    """Views (H, W) of the planes of a planar frame."""
    dtype = np.dtype("u1" if depth(frame.format) <= 8 else "<u2")
    rows = (np.frombuffer(each, dtype).reshape(each.height, -1) for each in frame.planes)
    return [plane[:, : frame.width] for plane in rows]


def from_rgb(colour: Colour, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(matrix, offset) from RGB in 0..1 to the planes of a frame: Y, Cb, Cr, or G, B, R."""
    white = (1 << bits) - 1
    if colour.matrix == RGB:
        return white * np.eye(3)[[1, 2, 0]], np.zeros(3)
    red, blue = LUMA[colour.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    cb, cr = (np.eye(3)[2] - luma) / (2 - 2 * blue), (np.eye(3)[0] - luma) / (2 - 2 * red)
    step = 1 << (bits - 8)
    if colour.range == FULL:
        gain, offset = [white] * 3, [0, 128 * step, 128 * step]
    else:
        gain, offset = [219 * step, 224 * step, 224 * step], [16 * step, 128 * step, 128 * step]
    return np.array(gain)[:, None] * np.stack([luma, cb, cr]), np.array(offset, float)


def _affine(planes, matrix, offset, white: int, out) -> None:
    """out = matrix @ planes + offset, rounded and clipped to 0..white; three planes (H, W) each."""
    matrix, offset = matrix.T.astype(np.float32), offset.astype(np.float32)
    for top in range(0, len(planes[0]), _ROWS):
        rows = slice(top, top + _ROWS)
        values = np.stack([plane[rows] for plane in planes], 2).astype(np.float32) @ matrix
        values += offset
        np.rint(values, out=values)
        np.clip(values, 0, white, out=values)
        for channel, plane in enumerate(out):
            plane[rows] = values[..., channel]
