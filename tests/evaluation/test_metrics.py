"""PSNR and SSIM against scikit-image, values computed by hand, and published bicubic values."""

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from espan.evaluation.metrics import PROTOCOLS, psnr, ssim, to_y
from espan.images.resize import modcrop, resize

RANGES = {np.uint8: 255, np.uint16: 65535, np.float32: 1, np.float64: 1}


def pair(*shape: int, dtype=np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image and a noisy copy."""
    random = np.random.default_rng(0)
    a = np.add.outer(np.sin(np.arange(shape[0]) / 5), np.cos(np.arange(shape[1]) / 7)) / 4 + 0.5
    a = np.broadcast_to(a.reshape(*shape[:2], *[1] * (len(shape) - 2)), shape)
    b = (a + random.normal(0, 0.05, shape)).clip(0, 1)
    white = RANGES[dtype]
    return tuple((x * white + (0.5 if white > 1 else 0)).astype(dtype) for x in (a, b))


def their_ssim(a: np.ndarray, b: np.ndarray, white: float) -> float:
    return structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        data_range=white,
        channel_axis=2 if a.ndim == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("shape", [(61, 83), (61, 83, 3), (11, 11), (11, 40, 3), (300, 11)])
def test_agrees_with_scikit_image(shape, dtype):
    a, b = pair(*shape, dtype=dtype)
    white = RANGES[dtype]
    how = {"space": "rgb" if len(shape) == 3 else "gray", "border": 0, "range": white}
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    theirs = peak_signal_noise_ratio(a64, b64, data_range=white)
    assert psnr(a, b, **how) == pytest.approx(theirs, abs=1e-9)
    assert ssim(a, b, **how) == pytest.approx(their_ssim(a, b, white), abs=1e-9)


def test_y_agrees_with_scikit_image_on_y():
    a, b = pair(61, 83, 3)
    ya, yb = to_y(a), to_y(b)
    how = {"space": "y", "border": 0, "range": 255}
    assert psnr(a, b, **how) == pytest.approx(peak_signal_noise_ratio(ya, yb, data_range=255))
    assert ssim(a, b, **how) == pytest.approx(their_ssim(ya, yb, 255), abs=1e-9)


def test_luma_of_known_colours():
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    y = to_y(colours.astype(np.uint8))
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, [16, 235, 81.481, 144.553, 40.966], rtol=1e-12)


def test_known_distances():
    a = np.full((20, 20, 3), 100, np.uint8)
    b = a + np.uint8(1)
    assert psnr(a, b, space="rgb", border=0, range=255) == pytest.approx(20 * np.log10(255))
    # On Y a difference of one becomes 219/255.
    y = 20 * np.log10(255 / (219 / 255))
    assert psnr(a, b, space="y", border=0, range=255) == pytest.approx(y)
    # "rgb" pools the channels before the logarithm.
    b = a.copy()
    b[..., 1] += 6
    pooled = 10 * np.log10(255**2 / 12)
    assert psnr(a, b, space="rgb", border=0, range=255) == pytest.approx(pooled)
    black, white = np.zeros((20, 20)), np.ones((20, 20))
    assert psnr(black, white, space="gray", border=0, range=1) == pytest.approx(0)


@pytest.mark.parametrize("space", ["y", "rgb"])
def test_equal_images(space):
    a, _ = pair(30, 40, 3)
    assert psnr(a, a, space=space, border=2, range=255) == float("inf")
    assert ssim(a, a, space=space, border=2, range=255) == 1


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("space", ["y", "rgb"])
def test_same_value_in_every_range(metric, space):
    a, b = pair(40, 50, 3)
    expected = metric(a, b, space=space, border=3, range=255)
    wide = [x.astype(np.uint16) * 257 for x in (a, b)]
    floats = [x / 255 for x in (a, b)]
    assert metric(*wide, space=space, border=3, range=65535) == pytest.approx(expected, abs=1e-9)
    assert metric(*floats, space=space, border=3, range=1.0) == pytest.approx(expected, abs=1e-9)
    mixed = metric(a, b.astype(np.float32), space=space, border=3, range=255)
    assert mixed == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_one_channel_is_three_equal_ones_on_y(metric):
    a, b = pair(40, 50)
    three = [np.repeat(x[..., None], 3, axis=2) for x in (a, b)]
    how = {"space": "y", "border": 4, "range": 255}
    assert metric(a, b, **how) == pytest.approx(metric(*three, **how), abs=1e-9)
    assert metric(a[..., None], b[..., None], **how) == metric(a, b, **how)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_border_is_left_out(metric):
    a, b = pair(40, 50, 3)
    expected = metric(a[4:-4, 4:-4], b[4:-4, 4:-4], space="rgb", border=0, range=255)
    b[:4], b[-4:], b[:, :4], b[:, -4:] = 0, 0, 255, 255
    assert metric(a, b, space="rgb", border=4, range=255) == expected


@pytest.mark.parametrize("strip", [1, 3000, 2**40])
def test_strips_of_ssim_leave_no_trace(monkeypatch, strip):
    monkeypatch.setattr("espan.evaluation.metrics.STRIP", strip)
    a, b = pair(70, 50, 3)
    value = ssim(a, b, space="rgb", border=0, range=255)
    assert value == pytest.approx(their_ssim(a, b, 255), abs=1e-9)


# Published for MATLAB's bicubic in most papers, which round Y; that costs 0.01 dB.
@pytest.mark.shared
@pytest.mark.parametrize(
    ("scale", "decibels", "similarity"),
    [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)],
)
def test_published_bicubic_of_set5(shared, scale, decibels, similarity):
    folder = shared / "data/benchmark/Set5"
    how = {"space": PROTOCOLS["classical"], "border": scale, "range": 255}
    values = []
    for path in sorted((folder / "HR").iterdir()):
        hr = modcrop(np.asarray(Image.open(path)), scale)
        lr = np.asarray(Image.open(folder / f"LRx{scale}" / path.name))
        sr = resize(lr, hr.shape[:2], round_passes=True)
        values.append((psnr(sr, hr, **how), ssim(sr, hr, **how)))
    mean = np.mean(values, axis=0)
    assert mean[0] == pytest.approx(decibels, abs=0.02)
    assert mean[1] == pytest.approx(similarity, abs=0.001)


A, B = pair(20, 24, 3)
GOOD = {"space": "rgb", "border": 0, "range": 255}


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("a", "b", "change", "message"),
    [
        (A, B[:-1], {}, r"b: expected the shape of a, \(20, 24, 3\), got \(19, 24, 3\)"),
        (A[..., :2], B[..., :2], {}, r"a, b: expected \(H, W\)"),
        (A[None], B[None], {}, r"a, b: expected \(H, W\)"),
        (A, B, {"space": "lab"}, "space: expected 'y' or 'rgb' .* got 'lab'"),
        (A, B, {"space": "gray"}, "space: expected 'y' or 'rgb'"),
        (A[..., 0], B[..., 0], {}, "space: expected 'y' or 'gray'"),
        (A, B, {"border": 10}, "border: .* got 10"),
        (A, B, {"border": -1}, "border: .* got -1"),
        (A, B, {"range": 1023}, "range: expected 255, 65535 or 1, got 1023"),
        (A, B, {"range": 1}, "range: expected 255 as a is uint8, got 1"),
        (A / 255, B, {"range": 65535}, "range: expected 255 as b is uint8"),
        (A / 1.0, B / 1.0, {"range": 1}, r"a: expected finite values in 0\.\.1, got"),
        (A, B - 256.0, {}, r"b: expected finite values in 0\.\.255, got"),
        (A, np.where(B > 100, np.nan, B), {}, r"b: expected finite .* nan\.\.nan"),
        (A, np.where(B > 100, np.inf, B), {}, r"b: expected finite .*\.\.inf"),
    ],
)
def test_refuses(metric, a, b, change, message):
    with pytest.raises(ValueError, match=message):
        metric(a, b, **(GOOD | change))


def test_ssim_needs_its_window():
    a, b = pair(20, 24, 3)
    with pytest.raises(ValueError, match=r"border: expected 11x11 .* got 10x14"):
        ssim(a, b, space="rgb", border=5, range=255)
    assert psnr(a, b, space="rgb", border=5, range=255) > 0


def test_arguments_have_no_defaults():
    for missing in GOOD:
        with pytest.raises(TypeError, match=missing):
            psnr(A, B, **{k: v for k, v in GOOD.items() if k != missing})


@pytest.mark.parametrize("shape", [(), (3, 4)])
def test_luma_refuses(shape):
    with pytest.raises(ValueError, match="rgb: expected"):
        to_y(np.zeros(shape))
