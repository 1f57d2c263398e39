"""PSNR and SSIM as the papers compute them. It knows no files and no torch."""

import numpy as np

from espan.errors import InputError

# The space in which published tables compare. Both shave `scale` pixels: 4 at NTIRE, x4 only.
PROTOCOLS = {"classical": "y", "ntire": "rgb"}

# BT.601 as MATLAB's rgb2ycbcr has it: 16 for black, 235 for white.
Y_OFFSET = 16.0
Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255

# Wang et al.'s window: 11x11, sigma 1.5, the product of this row and column.
WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
WINDOW /= WINDOW.sum()
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# SSIM is computed in bands of so many values, which stay in the processor's cache.
BAND = 2**15


def psnr(a: np.ndarray, b: np.ndarray, *, space: str, border: int, range: float) -> float:
    """Peak signal-to-noise ratio of two images.

    Args:
        a, b: (H, W), (H, W, 1) or (H, W, 3), RGB, of one shape; integers or floats in 0..range.
        space: "rgb" pools three channels in one mean squared error (NTIRE); "gray" takes one
            channel as it is; "y" is BT.601 luma in 16..235, not rounded, against a peak of 255
            (the classical sets, as BasicSR does), a single channel standing for three equal ones.
        border: pixels left out on each side, 0 or more.
        range: the value of white: 255, 65535 or 1; 255 for uint8, 65535 for uint16.

    Returns:
        The ratio in dB; inf when the images are equal.

    Raises:
        InputError: the images do not fit this, or a value is outside 0..range or not finite.
    """
    a, b = _comparable(a, b, space, border, range)
    error = np.mean(np.square(a - b))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(a: np.ndarray, b: np.ndarray, *, space: str, border: int, range: float) -> float:
    """Structural similarity of two images.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004:
    Gaussian window of 11x11 with sigma 1.5 where it fits whole, K1 = 0.01, K2 = 0.03, and the
    covariance of the population.

    Args:
        a, b: as for `psnr`, 11x11 pixels or more inside the border.
        space: as for `psnr`; "rgb" takes the mean over the channels.
        border: pixels left out on each side, 0 or more.
        range: the value of white: 255, 65535 or 1; 255 for uint8, 65535 for uint16.

    Returns:
        The similarity, at most 1.

    Raises:
        InputError: as for `psnr`, or fewer than 11x11 pixels are left.
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
    """Both pictures checked, shaved and in `space`: float64 (H, W, channels) in 0..255."""
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
    for name, picture in (("a", a), ("b", b)):
        native = {"uint8": 255, "uint16": 65535}.get(picture.dtype.name, white)
        if white != native:
            raise InputError(f"range: expected {native} as {name} is {picture.dtype}, got {white}")
        low, high = picture.min(), picture.max()
        if not (low >= 0 and high <= white):
            raise InputError(f"{name}: expected finite values in 0..{white}, got {low}..{high}")

    def plane(picture: np.ndarray) -> np.ndarray:
        inside = picture[border : a.shape[0] - border, border : a.shape[1] - border]
        inside = inside.reshape(*inside.shape[:2], channels).astype(np.float64) * (255 / white)
        if space != "y":
            return inside
        return to_y(np.broadcast_to(inside, (*inside.shape[:2], 3)))[..., None]

    return plane(a), plane(b)


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of two (H, W, channels) pictures in 0..255."""
    lost = len(WINDOW) - 1
    height, width, channels = a.shape[0] - lost, a.shape[1] - lost, a.shape[2]
    rows = max(1, BAND // a[0].size)
    total = 0.0
    for top in range(0, height, rows):
        x, y = a[top : top + rows + lost], b[top : top + rows + lost]
        planes = np.stack([x, y, x * x + y * y, x * y])
        x, y, squares, product = _blur(_blur(planes, axis=1), axis=2)
        means, covariance = x * x + y * y, product - x * y
        same = (2 * x * y + C1) * (2 * covariance + C2)
        total += np.sum(same / ((means + C1) * (squares - means + C2)))
    return float(total / (height * width * channels))


def _blur(planes: np.ndarray, axis: int) -> np.ndarray:
    """The window's row along one axis, where it fits whole: that axis gets 10 shorter."""
    planes = np.moveaxis(planes, axis, 0)
    middle = len(WINDOW) // 2
    n = len(planes) - 2 * middle
    total = WINDOW[middle] * planes[middle : middle + n]
    for k in range(middle):
        mirrored = 2 * middle - k
        total += WINDOW[k] * (planes[k : k + n] + planes[mirrored : mirrored + n])
    return np.moveaxis(total, 0, axis)
