"""Resizing: published images bit for bit, exact fractions, Pillow, memory."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from espan.images.resize import _taps, downscale, modcrop, resize


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    return values.astype(dtype) if dtype().dtype.kind == "f" else (values * 256).astype(dtype)


def cubic(x: Fraction) -> Fraction:
    x = abs(x)
    if x < 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)


def defined_column(column: list, after: int, border: str) -> list[Fraction]:
    """Resizes one column by the formula, without rounding."""
    n, result = len(column), []
    stretch = max(Fraction(1), Fraction(n, after))
    padded = range(-8 * n, 9 * n)
    for i in range(after):
        centre = (i + Fraction(1, 2)) * Fraction(n, after) - Fraction(1, 2)
        weights = {j: cubic((j - centre) / stretch) for j in padded}
        pixel = {
            "clamp": lambda j: column[min(max(j, 0), n - 1)],
            "mirror": lambda j: (column + column[::-1])[j % (2 * n)],
        }[border]
        total = sum(w * pixel(j) for j, w in weights.items() if w)
        result.append(total / sum(weights.values()))
    return result


def defined(image: np.ndarray, size: tuple[int, int], border: str, passes: bool) -> np.ndarray:
    def fit(x):
        return min(max((2 * x + 1) // 2, 0), 255)

    columns = [defined_column(c, size[0], border) for c in image.T.tolist()]
    if passes:
        columns = [[fit(x) for x in c] for c in columns]
    rows = [defined_column(list(r), size[1], border) for r in zip(*columns, strict=True)]
    return np.array([[fit(x) for x in r] for r in rows], np.uint8)


@pytest.mark.shared
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_published_images_bit_for_bit(shared, name, factor):
    folder = shared / "data/benchmark" / name
    paths = sorted((folder / "HR").iterdir())
    assert paths
    for path in paths:
        hr = np.asarray(Image.open(path))
        lr = np.asarray(Image.open(folder / f"LRx{factor}" / path.name))
        np.testing.assert_array_equal(downscale(modcrop(hr, factor), factor), lr, path.name)


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("border", ["clamp", "mirror"])
# Integer factors have ties to round; 11 -> 3 reaches far beyond the border.
@pytest.mark.parametrize("size", [(6, 4), (4, 2), (3, 8), (12, 24), (17, 5), (1, 1)])
def test_definition(size, border, passes):
    # Hard edges overshoot, so that clipping between the passes shows.
    image = np.where(noise(12, 8) > 128, 255, noise(12, 8) // 64).astype(np.uint8)
    result = resize(image, size, border=border, round_passes=passes)
    np.testing.assert_array_equal(result, defined(image, size, border, passes))


def test_borders_differ_only_near_the_border():
    image = noise(64, 64)
    clamp, mirror = (resize(image, (16, 16), border=b) for b in ("clamp", "mirror"))
    assert (clamp != mirror).any()
    np.testing.assert_array_equal(clamp[2:-2, 2:-2], mirror[2:-2, 2:-2])


@pytest.mark.parametrize("border", ["clamp", "mirror"])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 9), (9, 1), (10, 7), (7, 10), (500, 3)])
def test_weights_sum_to_one_and_stay_inside(before, after, border):
    index, weight = _taps(before, after, border, np.float64)
    assert index.shape == weight.shape and len(index) == after
    assert index.min() >= 0 and index.max() < before
    np.testing.assert_allclose(weight.sum(1), 1, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 1), (9, 13, 3), (9, 13, 4), (1, 1), (1, 7, 3)])
def test_layout_dtype_and_identity(shape, dtype):
    image = noise(*shape, dtype=dtype)
    before = image.copy()
    same = resize(image, shape[:2])
    assert same.dtype == image.dtype
    np.testing.assert_array_equal(same, image)
    assert resize(image, (4, 21)).shape == (4, 21, *shape[2:])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("border", ["clamp", "mirror"])
@pytest.mark.parametrize("size", [(1, 1), (5, 30), (30, 5), (64, 64)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (17, 1), (20, 20, 3)])
def test_constant_stays_constant(shape, size, border):
    for value in (0, 77, 255):
        image = np.full(shape, value, np.uint8)
        assert (resize(image, size, border=border) == value).all()
    assert (resize(np.full(shape, 65535, np.uint16), size, border=border) == 65535).all()
    floats = resize(np.full(shape, 0.3), size, border=border)
    np.testing.assert_allclose(floats, 0.3, rtol=1e-12)


@pytest.mark.parametrize("size", [(37, 53), (150, 203), (25, 101)])
def test_agrees_with_pillow_inside(size):
    image = noise(100, 101, dtype=np.float32)
    theirs = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    # Pillow ignores pixels beyond the border, so only the inside is equal.
    margin = 3 * max(1, size[0] // 100)
    inside = slice(margin, -margin), slice(margin, -margin)
    np.testing.assert_allclose(resize(image, size)[inside], theirs[inside], atol=2e-6)


@pytest.mark.parametrize("border", ["clamp", "mirror"])
@pytest.mark.parametrize("size", [(61, 143), (200, 40), (7, 90), (97, 90)])
def test_strip_size_does_not_change_the_result(monkeypatch, size, border):
    image = noise(97, 90, 3)
    results = []
    for strip in (1, 3000, 2**40):
        monkeypatch.setattr("espan.images.resize.STRIP", strip)
        results.append(resize(image, size, border=border))
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[2])


def test_views_are_accepted():
    image = noise(40, 50, 3)
    view = image[::-1, ::2].transpose(1, 0, 2)
    np.testing.assert_array_equal(resize(view, (9, 9)), resize(view.copy(), (9, 9)))


def test_memory_of_twelve_megapixels():
    image = np.zeros((3000, 4000, 3), np.uint8)
    tracemalloc.start()
    result = resize(image, (2121, 2828))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - result.nbytes < 30e6


def test_modcrop():
    assert modcrop(noise(11, 13, 3), 4).shape == (8, 12, 3)
    assert modcrop(noise(12, 8), 4).shape == (12, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resize(noise(4), (2, 2)), r"image: expected \(H, W\)"),
        (lambda: resize(noise(0, 4), (2, 2)), "image: .* not empty"),
        (lambda: resize(noise(4, 4).astype(np.int64), (2, 2)), "image: .* got int64"),
        (lambda: resize(noise(4, 4), (0, 2)), "size: "),
        (lambda: resize(noise(4, 4), (2, 2, 3)), "size: "),
        (lambda: resize(noise(4, 4), (2, 2), border="wrap"), "border: .* got 'wrap'"),
        (lambda: downscale(noise(4, 5), 4), "factor: expected a divisor of 4 and 5, got 4"),
        (lambda: downscale(noise(4, 4), 0), "factor: "),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
