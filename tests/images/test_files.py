"""Reading and writing image files: pixels and metadata that are kept, some despite Pillow."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from espan import LimitError, Limits
from espan.images import files
from espan.images.files import writing
from tests.support.makers import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    chunk,
    disc,
    noise,
    png,
    scanlines,
)

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# 2 x 3 pixels, all different, so that every rotation is visible.
SMALL = noise(2, 3, 3)


def exif(**values) -> bytes:
    data = Image.Exif()
    names = {"orientation": 0x0112, "maker": 0x010F}
    for name, value in values.items():
        data[names[name]] = value
    return data.tobytes()


def write_raw(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_orientation_is_applied_once(tmp_path, suffix, orientation, turned):
    pixels = np.kron(SMALL, np.ones((16, 16, 1), np.uint8))  # multiples of JPEG's blocks
    path = tmp_path / f"a.{suffix}"
    how = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(path, exif=exif(orientation=orientation), **how)
    upright = files.read(path)
    expected = np.rot90(pixels, turned)
    assert np.abs(np.asarray(upright, int) - expected).mean() < (10 if suffix == "jpg" else 1e-9)
    written = files.write(tmp_path / f"b.{suffix}", upright)
    with Image.open(written) as again:
        assert again.getexif().get(0x0112, 1) == 1
        assert again.size == upright.size


@pytest.mark.parametrize("to", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("source", ["png", "jpg", "webp", "tif"])
def test_profile_is_kept(tmp_path, source, to):
    path = tmp_path / f"a.{source}"
    Image.fromarray(SMALL).save(path, icc_profile=PROFILE)
    written = files.write(tmp_path / f"b.{to}", files.read(path))
    with Image.open(written) as image:
        assert image.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("to", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("source", ["png", "jpg", "webp", "tif"])
def test_exif_is_kept(tmp_path, source, to):
    path = tmp_path / f"a.{source}"
    Image.fromarray(SMALL).save(path, exif=exif(maker="Zenith"))
    written = files.write(tmp_path / f"b.{to}", files.read(path))
    with Image.open(written) as image:
        assert image.getexif().get(0x010F) == "Zenith"


def test_sizes_in_exif_are_updated(tmp_path):
    data = Image.Exif()
    data.get_ifd(0x8769).update({0xA002: 2, 0xA003: 3})
    Image.fromarray(SMALL).save(tmp_path / "a.jpg", exif=data.tobytes())
    image = files.read(tmp_path / "a.jpg")
    large = image.resize((12, 8))
    large.info = image.info
    with Image.open(files.write(tmp_path / "b.jpg", large)) as image:
        details = image.getexif().get_ifd(0x8769)
    assert (details[0xA002], details[0xA003]) == (12, 8)


# WebP has no field for it.
@pytest.mark.parametrize("to", ["png", "jpg", "tif"])
@pytest.mark.parametrize("source", ["png", "jpg", "tif"])
def test_resolution_is_kept(tmp_path, source, to):
    path = tmp_path / f"a.{source}"
    Image.fromarray(SMALL).save(path, dpi=(300, 150))
    written = files.write(tmp_path / f"b.{to}", files.read(path))
    with Image.open(written) as image:
        assert [float(each) for each in image.info["dpi"]] == pytest.approx([300, 150], abs=0.1)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_round_trip_is_exact(tmp_path, monkeypatch, mode, suffix):
    holds = {"bmp": ("L", "RGB"), "webp": ("RGB", "RGBA")}
    if mode not in holds.get(suffix, (mode,)):
        pytest.skip(f"{suffix} has no mode {mode}")
    monkeypatch.setitem(writing.SAVE, "WEBP", {"lossless": True, "exact": True})
    channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "I;16": ()}[mode]
    pixels = noise(5, 4, *channels, dtype=np.uint16 if mode == "I;16" else np.uint8)
    path = files.write(tmp_path / f"a.{suffix}", Image.fromarray(pixels))
    again = files.read(path)
    assert again.mode == mode
    np.testing.assert_array_equal(np.asarray(again), pixels)


@pytest.mark.parametrize(
    ("bits", "colour", "shape"),
    [(8, GREY, ()), (16, GREY, ()), (8, RGB, (3,)), (8, GREY_ALPHA, (2,)), (8, RGB_ALPHA, (4,))],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (4, 5)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_png_of_every_kind(tmp_path, size, bits, colour, shape):
    pixels = noise(*size, *shape, dtype=np.uint16 if bits == 16 else np.uint8)
    content = png(size[1], size[0], bits, colour, scanlines(pixels))
    image = files.read(write_raw(tmp_path / "a.png", content))
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_grey_levels_are_spread_over_8_bits(tmp_path, bits):
    # One row: black, then white.
    row = bytes([0, (2**bits - 1) << (8 - 2 * bits)])
    image = files.read(write_raw(tmp_path / "a.png", png(2, 1, bits, GREY, row)))
    assert image.mode == "L" and np.asarray(image).tolist() == [[0, 255]]


def test_palette_becomes_colours(tmp_path):
    palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    content = png(2, 1, 8, PALETTE, bytes([0, 1, 0]), palette)
    image = files.read(write_raw(tmp_path / "a.png", content))
    assert image.mode == "RGB"
    assert np.asarray(image).tolist() == [[[200, 100, 50], [10, 20, 30]]]


def test_palette_with_transparency_becomes_alpha(tmp_path):
    extra = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50])), chunk(b"tRNS", bytes([128, 0]))
    content = png(2, 1, 8, PALETTE, bytes([0, 1, 0]), *extra)
    image = files.read(write_raw(tmp_path / "a.png", content))
    assert image.mode == "RGBA"
    assert np.asarray(image)[..., 3].tolist() == [[0, 128]]


def test_transparent_colour_becomes_alpha(tmp_path):
    rows = bytes([0, 1, 2, 3, 9, 9, 9])
    content = png(2, 1, 8, RGB, rows, chunk(b"tRNS", bytes([0, 1, 0, 2, 0, 3])))
    image = files.read(write_raw(tmp_path / "a.png", content))
    assert np.asarray(image).tolist() == [[[1, 2, 3, 0], [9, 9, 9, 255]]]


@pytest.mark.parametrize(
    ("bits", "rows"),
    [pytest.param(8, bytes([0, 0, 255]), id="8"), pytest.param(1, bytes([0, 0x40]), id="1")],
)
def test_transparent_grey_becomes_alpha(tmp_path, bits, rows):
    content = png(2, 1, bits, GREY, rows, chunk(b"tRNS", bytes([0, 0])))
    image = files.read(write_raw(tmp_path / "a.png", content))
    assert image.mode == "LA"
    assert np.asarray(image).tolist() == [[[0, 0], [255, 255]]]


def test_transparent_16_bit_grey_becomes_alpha(tmp_path):
    rows = scanlines(np.array([[0, 40000]], np.uint16))
    content = png(2, 1, 16, GREY, rows, chunk(b"tRNS", bytes([0, 0])))
    image = files.read(write_raw(tmp_path / "a.png", content))
    assert image.mode == "LA;16"
    assert np.asarray(image).tolist() == [[[0, 0], [40000, 65535]]]


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_one_frame_is_not_an_animation(tmp_path, suffix):
    Image.fromarray(disc()).save(tmp_path / f"a.{suffix}", save_all=True)
    assert files.read(tmp_path / f"a.{suffix}").size == (32, 32)


def test_limits_are_arguments(tmp_path):
    path = files.write(tmp_path / "a.png", Image.new("L", (10, 10)))
    assert files.read(path, scale=4, limits=Limits(100, 1600)).size == (10, 10)
    with pytest.raises(LimitError, match="over the limit of 99"):
        files.read(path, limits=Limits(99))
    with pytest.raises(LimitError, match="output limit of 1,599"):
        files.read(path, scale=4, limits=Limits(max_output=1599))


@pytest.mark.parametrize("size", [(480, 480), (111, 95)])
def test_photographs_are_about_as_small_as_with_zlib_level_1(tmp_path, size):
    with Image.open(Path(__file__).parents[2] / "docs/images/kitten.png") as image:
        photograph = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    photograph.save(tmp_path / "pillow.png", compress_level=1)
    ours = files.write(tmp_path / "ours.png", photograph)
    assert ours.stat().st_size < 1.15 * (tmp_path / "pillow.png").stat().st_size
