"""Bicubic resizing as MATLAB's imresize does it. It knows no files and no torch."""

import numpy as np

from espan.errors import InputError

# A picture is resized in bands of so many values, which stay in the processor's cache.
BAND = 2**17


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    *,
    border: str = "clamp",
    round_passes: bool = False,
) -> np.ndarray:
    """The picture at `size` = (height, width), bicubic, antialiased where it shrinks.

    image: (H, W) or (H, W, C), uint8, uint16 or floating; the result keeps layout and dtype.
    Integers are rounded half up and clipped to their dtype; floats may overshoot the input's range.
    border: what lies outside the picture: "clamp" repeats its edge, "mirror" reflects it.
    round_passes: round and clip integers between the vertical pass and the horizontal one too, as
    MATLAB does.

    Raises InputError for another shape, dtype, size or border.

    Keys, "Cubic convolution interpolation for digital image processing", 1981, a = -1/2. MATLAB
    widens the kernel by the shrink factor; its border is "clamp" in old versions, "mirror" in new.
    """
    _check(image)
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"size: expected (height, width) of at least 1, got {size!r}")
    if border not in ("clamp", "mirror"):
        raise InputError(f"border: expected 'clamp' or 'mirror', got {border!r}")
    return _rows(image, 0, image.shape[0], size, (0, size[0]), border, round_passes)


def resize_rows(image: np.ndarray, size: tuple[int, int], wanted: tuple[int, int]) -> np.ndarray:
    """Rows `wanted` (first, stop) of `resize(image, size)`."""
    return _rows(image, 0, image.shape[0], size, wanted, "clamp", False)


class RowByRow:
    """`resize` of a picture of `height` rows to `size`, a few rows at a time from top to bottom."""

    def __init__(self, height: int, size: tuple[int, int]):
        self.height, self.size, self.done, self.top = height, size, 0, 0
        index, _ = _taps(height, size[0], "clamp", np.float64)
        self.first, self.last = index.min(1), index.max(1)
        self.kept: np.ndarray | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The rows of the result that can be made now; rows (h, W[, C]) are the next ones."""
        self.kept = rows if self.kept is None else np.concatenate([self.kept, rows])
        known = self.top + len(self.kept)
        done = int(np.searchsorted(self.last, known))
        out = _rows(self.kept, self.top, self.height, self.size, (self.done, done), "clamp", False)
        self.done = done
        if done < self.size[0]:
            used = self.first[done] - self.top
            self.kept, self.top = self.kept[used:].copy(), self.first[done]
        return out


def _rows(
    image: np.ndarray,
    above: int,
    whole: int,
    size: tuple[int, int],
    wanted: tuple[int, int],
    border: str,
    round_passes: bool,
) -> np.ndarray:
    """Rows `wanted` (first, stop) of the result, from those of a picture of `whole` rows that begin
    `above` rows below its top."""
    (height, width), channels = size, image.shape[2:]
    depth = channels[0] if channels else 1
    start, stop = wanted
    out = np.empty((stop - start, width, *channels), image.dtype)
    # float32 rounds 8-bit pictures rightly even at ties: weights of x2 and x4 are exact in it, and
    # x3 has no ties. 16-bit sums need more.
    work = np.float32 if image.dtype in (np.uint8, np.float16, np.float32) else np.float64
    row_index, row_weight = _taps(whole, height, border, work)
    row_index, row_weight = row_index[start:stop] - above, row_weight[start:stop]
    column_index, column_weight = _taps(image.shape[1], width, border, work)

    pixels_per_row = max(whole / height, 1) * max(image.shape[1], width)
    rows = max(1, int(BAND / (pixels_per_row * depth)))
    for top in range(0, stop - start, rows):
        index = row_index[top : top + rows]
        first, last = index.min(), index.max() + 1
        band = image[first:last].reshape(last - first, -1).astype(work)
        band = _weigh(band, index - first, row_weight[top : top + rows])
        if round_passes:
            _round(band, image.dtype)
        # Transposed, the horizontal pass reads whole rows too.
        band = band.reshape(len(index), -1, depth).swapaxes(0, 1).reshape(image.shape[1], -1)
        band = _round(_weigh(band, column_index, column_weight), image.dtype)
        band = band.reshape(width, len(index), depth).swapaxes(0, 1)
        out[top : top + rows] = band.reshape(len(index), width, *channels)
    return out


def downscale(image: np.ndarray, factor: int) -> np.ndarray:
    """The low-resolution picture of the published test sets: (H, W[, C]) -> (H/factor, ...).

    As `resize` with MATLAB's rounding after each pass and its older border. Raises InputError
    when a side is no multiple of `factor`: see `modcrop`.
    """
    _check(image)
    height, width = image.shape[:2]
    if factor < 1 or height % factor or width % factor:
        raise InputError(f"factor: expected a divisor of {height} and {width}, got {factor!r}")
    return resize(image, (height // factor, width // factor), round_passes=True)


def modcrop(image: np.ndarray, factor: int) -> np.ndarray:
    """The top left part of (H, W[, C]) whose sides are multiples of `factor`, as a view."""
    height, width = image.shape[:2]
    return image[: height - height % factor, : width - width % factor]


def _check(image: np.ndarray) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError(f"image: expected (H, W) or (H, W, C), not empty, got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise InputError(f"image: expected uint8, uint16 or floats, got {image.dtype}")


def _taps(before: int, after: int, border: str, work: type) -> tuple[np.ndarray, np.ndarray]:
    """Which input pixels make each output pixel, and how much: (after, taps) indices, weights."""
    stretch = max(1.0, before / after)
    centre = (2 * np.arange(after) + 1) * before / (2 * after) - 0.5
    first = np.floor(centre - 2 * stretch).astype(np.int64) + 1
    index = first[:, None] + np.arange(int(np.ceil(4 * stretch)))
    weight = _cubic((centre[:, None] - index) / stretch)
    weight /= weight.sum(1, keepdims=True)
    if border == "clamp":
        index = index.clip(0, before - 1)
    else:
        index %= 2 * before
        index = np.minimum(index, 2 * before - 1 - index)
    return index, weight.astype(work)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _weigh(rows: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(n, m) rows -> (len(index), m): sums of the rows that `index` names, times `weight`."""
    total = weight[:, :1] * rows[index[:, 0]]
    for k in range(1, index.shape[1]):
        total += weight[:, k : k + 1] * rows[index[:, k]]
    return total


def _round(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Half up and clipped to `dtype` if that is an integer one, in place; still floating."""
    if dtype.kind == "u":
        x += 0.5
        np.floor(x, out=x)
        np.clip(x, 0, np.iinfo(dtype).max, out=x)
    return x
