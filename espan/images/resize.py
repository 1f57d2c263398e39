"""Bicubic resizing as in MATLAB's imresize, without files and torch."""

import numpy as np

from espan.errors import InputError

# Values per strip of rows that is resized at a time; a strip stays in the CPU's cache.
STRIP = 2**17


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    *,
    border: str = "clamp",
    round_passes: bool = False,
) -> np.ndarray:
    """Resizes an image to `size` = (height, width): bicubic, antialiased where it shrinks.

    image: (H, W) or (H, W, C), uint8, uint16 or floating; the result has the same layout and dtype.
    Integers are rounded half up and clipped to their dtype; floats may overshoot the input's range.
    border: the values outside the image: "clamp" repeats its edge, "mirror" reflects the image.
    round_passes: also rounds and clips integers between the vertical and the horizontal pass, like
    MATLAB.

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
    """Returns rows `wanted` (first, stop) of `resize(image, size)`."""
    return _rows(image, 0, image.shape[0], size, wanted, "clamp", False)


class RowByRow:
    """Resizes an image of `height` rows to `size`, a few rows at a time from top to bottom."""

    def __init__(self, height: int, size: tuple[int, int]):
        self.height, self.size, self.done, self.top = height, size, 0, 0
        index, _ = _taps(height, size[0], "clamp", np.float64)
        self.first, self.last = index.min(1), index.max(1)
        self.kept: np.ndarray | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Takes the next rows (h, W[, C]); returns the rows of the result that are now complete."""
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
    """Computes rows `wanted` (first, stop) of the result.

    image: rows of an image of `whole` rows, beginning with row `above`.
    """
    (height, width), channels = size, image.shape[2:]
    depth = channels[0] if channels else 1
    start, stop = wanted
    out = np.empty((stop - start, width, *channels), image.dtype)
    # float32 rounds 8-bit images correctly even at ties: the weights of x2 and x4 are exact in it,
    # and x3 has no ties. 16-bit sums need float64.
    work = np.float32 if image.dtype in (np.uint8, np.float16, np.float32) else np.float64
    row_index, row_weight = _taps(whole, height, border, work)
    row_index, row_weight = row_index[start:stop] - above, row_weight[start:stop]
    column_index, column_weight = _taps(image.shape[1], width, border, work)

    pixels_per_row = max(whole / height, 1) * max(image.shape[1], width)
    rows = max(1, int(STRIP / (pixels_per_row * depth)))
    for top in range(0, stop - start, rows):
        index = row_index[top : top + rows]
        first, last = index.min(), index.max() + 1
        strip = image[first:last].reshape(last - first, -1).astype(work)
        strip = _weigh(strip, index - first, row_weight[top : top + rows])
        if round_passes:
            _round(strip, image.dtype)
        # Transposed, so that the horizontal pass reads contiguous rows too.
        strip = strip.reshape(len(index), -1, depth).swapaxes(0, 1).reshape(image.shape[1], -1)
        strip = _round(_weigh(strip, column_index, column_weight), image.dtype)
        strip = strip.reshape(width, len(index), depth).swapaxes(0, 1)
        out[top : top + rows] = strip.reshape(len(index), width, *channels)
    return out


def downscale(image: np.ndarray, factor: int) -> np.ndarray:
    """Makes the low-resolution image as in the published test sets: (H, W[, C]) -> (H/factor, ...).

    Same as `resize` with MATLAB's rounding after each pass and its older border. Raises InputError
    if a side is not a multiple of `factor`: see `modcrop`.
    """
    _check(image)
    height, width = image.shape[:2]
    if factor < 1 or height % factor or width % factor:
        raise InputError(f"factor: expected a divisor of {height} and {width}, got {factor!r}")
    return resize(image, (height // factor, width // factor), round_passes=True)


def modcrop(image: np.ndarray, factor: int) -> np.ndarray:
    """Crops (H, W[, C]) at the bottom and right to multiples of `factor`; returns a view."""
    height, width = image.shape[:2]
    return image[: height - height % factor, : width - width % factor]


def _check(image: np.ndarray) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError(f"image: expected (H, W) or (H, W, C), not empty, got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise InputError(f"image: expected uint8, uint16 or floats, got {image.dtype}")


def _taps(before: int, after: int, border: str, work: type) -> tuple[np.ndarray, np.ndarray]:
    """Input pixels of each output pixel, and their weights: both (after, taps)."""
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
    """Weighted sums of rows: (n, m) -> (len(index), m)."""
    total = weight[:, :1] * rows[index[:, 0]]
    for k in range(1, index.shape[1]):
        total += weight[:, k : k + 1] * rows[index[:, k]]
    return total


def _round(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounds half up and clips to `dtype`, in place, if it is an integer dtype; stays floating."""
    if dtype.kind == "u":
        x += 0.5
        np.floor(x, out=x)
        np.clip(x, 0, np.iinfo(dtype).max, out=x)
    return x
