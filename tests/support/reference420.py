"""4:2:0 to RGB and back in float64, from H.273's formulas and Lanczos as a matrix."""

import numpy as np

LOBES = 3
WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def resampling(before: int, after: int, at: float) -> np.ndarray:
    """The matrix (after, before) from samples, or to samples, that lie `at` luma samples in."""
    matrix = np.zeros((after, before))
    for row in range(after):
        if after > before:
            centre, stretch = (row - at) / 2, 1
        else:
            centre, stretch = 2 * row + at, 2
        for tap in range(-20, before + 20):
            x = abs(tap - centre) / stretch
            if x < LOBES:
                matrix[row, np.clip(tap, 0, before - 1)] += np.sinc(x) * np.sinc(x / LOBES)
    return matrix / matrix.sum(1, keepdims=True)


def _levels(bits: int, full: bool) -> tuple[float, float, float]:
    """(black, range of luma, range of chroma)."""
    step = 1 << (bits - 8)
    white = (1 << bits) - 1
    return (0, white, white) if full else (16 * step, 219 * step, 224 * step)


def to_rgb(luma, chroma, bits: int, matrix: int, full: bool, siting=(0.5, 0.5)) -> np.ndarray:
    """Levels (H, W) and (2, H/2, W/2) to RGB (3, H, W) in 0..1."""
    black, high, wide = _levels(bits, full)
    (height, width), (red, blue) = luma.shape, WEIGHTS[matrix]
    across = resampling(width // 2, width, siting[0])
    down = resampling(height // 2, height, siting[1])
    y = (luma - black) / high
    cb, cr = (down @ (plane - (128 << (bits - 8))) @ across.T / wide for plane in chroma)
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.stack([r, g, b]).clip(0, 1)


def from_rgb(rgb, bits: int, matrix: int, full: bool) -> tuple[np.ndarray, np.ndarray]:
    """RGB (3, H, W) in 0..1 to levels (H, W) and (2, H/2, W/2), with chroma in the centre."""
    black, high, wide = _levels(bits, full)
    (_, height, width), (red, blue) = rgb.shape, WEIGHTS[matrix]
    y = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    across, down = (resampling(side, side // 2, 0.5) for side in (width, height))
    both = (rgb[2] - y) / (2 - 2 * blue), (rgb[0] - y) / (2 - 2 * red)
    chroma = np.stack([down @ each @ across.T * wide + (128 << (bits - 8)) for each in both])
    top = (1 << bits) - 1
    return (black + high * y).clip(0, top), chroma.clip(0, top)
