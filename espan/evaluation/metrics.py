"""PSNR and SSIM as the papers compute them, in numpy."""

import numpy as np

from espan.errors import InputError

# Colour spaces of published tables. Both shave `scale` pixels; NTIRE is x4 only.
PROTOCOLS = {"classical": "y", "ntire": "rgb"}

# BT.601 as in MATLAB's rgb2ycbcr: 16 for black, 235 for white.
Y_OFFSET = 16.0
Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255

# Wang et al.'s window: 11x11, sigma 1.5, the product of this row and column.
WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
WINDOW /= WINDOW.sum()
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# SSIM processes strips of this many values, which stay in the processor's cache.
STRIP = 2**15


def psnr(a: np.ndarray, b: np.ndarray, *, space: str, border: int, range: float) -> float:
    """Peak signal-to-noise ratio of two images.

    Args:
        a, b: images (H, W), (H, W, 1) or (H, W, 3), RGB, same shape; integers or floats in
            0..range.
        space: "rgb" pools three channels in one mean squared error (NTIRE); "gray" uses a single
            channel; "y" is BT.601 luma in 16..235, not rounded, with a peak of 255 (the classical
            sets, as in BasicSR), where a single channel counts as three equal ones.
        border: pixels ignored on each side, 0 or more.
        range: the value of white: 255, 65535 or 1; must be 255 for uint8, 65535 for uint16.

    Returns:
        The ratio in dB; inf for equal images.

    Raises:
        InputError: an argument is invalid, or a value is outside 0..range or not finite.
    """
    a, b = _comparable(a, b, space, border, range)
    error = np.mean(np.square(a - b))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(a: np.ndarray, b: np.ndarray, *, space: str, border: int, range: float) -> float:
    """Structural similarity of two images.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004:
    Gaussian window of 11x11 with sigma 1.5 without padding, K1 = 0.01, K2 = 0.03, and population
    covariance.

    Args:
        a, b: as for `psnr`, 11x11 pixels or more inside the border.
        space: as for `psnr`; "rgb" is the mean over the channels.
        border: pixels ignored on each side, 0 or more.
        range: as for `psnr`.

    Returns:
        The similarity, at most 1.

    Raises:
        InputError: as for `psnr`, or fewer than 11x11 pixels remain.
    """
    a, b = _comparable(a, b, space, border, range)
    if min(a.shape[:2]) < len(WINDOW):
        raise InputError(
            f"border: expected {len(WINDOW)}x{len(WINDOW)} pixels or more inside it, "
            f"got {a.shape[0]}x{a.shape[1]}"
        )
    return _ssim(a, b)


def to_y(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) RGB in 0..255 -> (...) float64 luma in 16..235, not rounded: MATLAB's rgb2ycbcr."""
    if rgb.ndim == 0 or rgb.shape[-1] != 3:
        raise InputError(f"rgb: expected (..., 3), got {rgb.shape}")
    return Y_OFFSET + rgb.astype(np.float64) @ Y_WEIGHTS


def _comparable(
    a: np.ndarray, b: np.ndarray, space: str, border: int, white: float
) -> tuple[np.ndarray, np.ndarray]:
    """Checks both images, shaves them and converts to `space`: float64 (H, W, channels), 0..255."""
    if a.shape != b.shape:
        raise InputError(f"b: expected the shape of a, {a.shape}, got {b.shape}")
    if a.ndim not in (2, 3) or a.shape[2:] not in ((), (1,), (3,)):
        raise InputError(f"a, b: expected (H, W), (H, W, 1) or (H, W, 3), got {a.shape}")
    channels, own = (3, "rgb") if a.shape[2:] == (3,) else (1, "gray")
    if space not in ("y", own):
        raise InputError(f"space: expected 'y' or {own!r} for {a.shape}, got {space!r}")
    if white not in (255, 65535, 1):
        raise InputError(f"range: expected 255, 65535 or 1, got {white!r}")
    if border < 0 or 2 * border >= min(a.shape[:2]):
        raise InputError(f"border: expected 0 or more, less than half a side, got {border!r}")
    for name, image in (("a", a), ("b", b)):
        native = {"uint8": 255, "uint16": 65535}.get(image.dtype.name, white)
        if white != native:
            raise InputError(f"range: expected {native} as {name} is {image.dtype}, got {white}")
        low, high = image.min(), image.max()
        if not (low >= 0 and high <= white):
            raise InputError(f"{name}: expected finite values in 0..{white}, got {low}..{high}")

    def converted(image: np.ndarray) -> np.ndarray:
        inside = image[border : a.shape[0] - border, border : a.shape[1] - border]
        inside = inside.reshape(*inside.shape[:2], channels).astype(np.float64) * (255 / white)
        if space != "y":
            return inside
        return to_y(np.broadcast_to(inside, (*inside.shape[:2], 3)))[..., None]

    return converted(a), converted(b)


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of two (H, W, channels) images in 0..255."""
    lost = len(WINDOW) - 1
    height, width, channels = a.shape[0] - lost, a.shape[1] - lost, a.shape[2]
    rows = max(1, STRIP // a[0].size)
    total = 0.0
    for top in range(0, height, rows):
        x, y = a[top : top + rows + lost], b[top : top + rows + lost]
        stats = np.stack([x, y, x * x + y * y, x * y])
        x, y, squares, product = _blur(_blur(stats, axis=1), axis=2)
        means, covariance = x * x + y * y, product - x * y
        same = (2 * x * y + C1) * (2 * covariance + C2)
        total += np.sum(same / ((means + C1) * (squares - means + C2)))
    return float(total / (height * width * channels))


def _blur(stats: np.ndarray, axis: int) -> np.ndarray:
    """Convolves one axis with WINDOW, without padding, which shortens the axis by 10."""
    stats = np.moveaxis(stats, axis, 0)
    middle = len(WINDOW) // 2
    n = len(stats) - 2 * middle
    total = WINDOW[middle] * stats[middle : middle + n]
    for k in range(middle):
        mirrored = 2 * middle - k
        total += WINDOW[k] * (stats[k : k + n] + stats[mirrored : mirrored + n])
    return np.moveaxis(total, 0, axis)
