"""Unusable files: each raises one InputError that names the file and the cause."""

import os
import struct
import time

import numpy as np
import pytest
from PIL import Image

from espan import InputError, LimitError
from espan.images import files
from tests.support.makers import PALETTE, RGB, chunk, noise, png, scanlines

IMAGE = Image.fromarray(noise(24, 20, 3))


def refused(path, match: str, kind=InputError, **limits) -> None:
    with pytest.raises(kind, match=match) as caught:
        files.read(path, **limits)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif", "ppm", "avif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(tmp_path, suffix, share):
    path = tmp_path / f"a.{suffix}"
    IMAGE.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "damaged or truncated|not an image")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_empty(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.touch()
    refused(path, "empty file")


@pytest.mark.parametrize("content", [b"hello\n" * 50, b"\0" * 300, b"%PDF-1.7\n"], ids=str)
def test_not_an_image(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    refused(path, "not an image in a known format")


def test_formats_outside_the_list_are_refused(tmp_path):
    # Pillow can open it, but fewer decoders have fewer vulnerabilities.
    IMAGE.save(tmp_path / "a.png", format="ICO", sizes=[(16, 16)])
    refused(tmp_path / "a.png", "not an image in a known format")


@pytest.mark.parametrize(("name", "format"), [("a.png", "JPEG"), ("a.jpg", "PNG")])
def test_wrong_extension_is_read_by_content(tmp_path, name, format):
    IMAGE.save(tmp_path / name, format=format)
    assert files.read(tmp_path / name).size == IMAGE.size


def test_missing(tmp_path):
    refused(tmp_path / "none.png", "no such file")


def test_folder(tmp_path):
    refused(tmp_path, "is a directory")


def test_part_of_the_path_is_a_file(tmp_path):
    (tmp_path / "a.png").touch()
    refused(tmp_path / "a.png/b.png", "[Nn]ot a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    refused(tmp_path / "a.png", "permission denied")


@pytest.mark.parametrize(("suffix", "mode"), [("tif", "LAB"), ("tif", "YCbCr")])
def test_other_colour_models_are_named(tmp_path, suffix, mode):
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (8, 8)).save(path)
    refused(path, f"{mode} pixels are not supported")


@pytest.mark.parametrize("mode", ["F", "I"])
def test_wide_pixels_are_named(tmp_path, mode):
    Image.new(mode, (8, 8)).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", f"{mode} pixels are not supported")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "avif"])
def test_animation_is_refused(tmp_path, suffix):
    frames = [Image.fromarray(noise(8, 8, 3, seed=seed)) for seed in range(3)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    refused(path, r"3 (frames|pages)")


def tiff(width: int, height: int, bits: int, samples: int, pixels: bytes, photometric=2) -> bytes:
    """An uncompressed little-endian TIFF: header, directory, bits per sample, pixels."""
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, samples, bits if samples == 1 else 8 + 2 + 9 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 2 * samples),
        (277, 3, 1, samples),
        (278, 3, 1, height),
        (279, 4, 1, len(pixels)),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    depths = struct.pack("<H", bits) * samples
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + depths + pixels


def test_8_bit_colour_tiff_is_read(tmp_path):
    pixels = noise(5, 4, 3)
    (tmp_path / "a.tif").write_bytes(tiff(4, 5, 8, 3, pixels.tobytes()))
    np.testing.assert_array_equal(np.asarray(files.read(tmp_path / "a.tif")), pixels)


def test_pillow_logs_nothing(tmp_path, caplog):
    (tmp_path / "a.tif").write_bytes(tiff(4, 5, 8, 90, bytes(90 * 20)))
    refused(tmp_path / "a.tif", "damaged|not an image")
    assert not caplog.records


def test_16_bit_colour_ppm_is_refused_by_name(tmp_path):
    pixels = noise(5, 4, 3, dtype=np.uint16).astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(b"P6 4 5 65535\n" + pixels)
    refused(tmp_path / "a.ppm", "16-bit colour")


@pytest.mark.parametrize("sides", [(60000, 60000), (2**31 - 1, 1), (9460, 9460)], ids=str)
def test_bomb_is_refused_by_its_header(tmp_path, sides):
    # Without pixels: decoding before the check would report "truncated".
    (tmp_path / "a.png").write_bytes(png(*sides, 8, RGB, None))
    began = time.process_time()  # independent of other load
    refused(tmp_path / "a.png", f"{sides[0] * sides[1]:,} pixels are over the limit", LimitError)
    assert time.process_time() - began < 0.5


def test_output_limit_is_checked_on_the_header(tmp_path):
    # 9400^2 pixels may be read. 16 times as many are 1.41e9 and allowed, 25 times are too many.
    (tmp_path / "a.png").write_bytes(png(9400, 9400, 8, RGB, None))
    refused(tmp_path / "a.png", "output limit of 1,500,000,000", LimitError, scale=5)
    refused(tmp_path / "a.png", "damaged or truncated", scale=4)


def test_text_bomb(tmp_path):
    # 100 MB of zeros in a comment of 100 kB.
    import zlib

    text = chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(10**8)))
    rows = scanlines(noise(2, 2, 3))
    (tmp_path / "a.png").write_bytes(png(2, 2, 8, RGB, rows, text))
    refused(tmp_path / "a.png", "damaged|large")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png(0, 4, 8, RGB, b""), id="no-width"),
        pytest.param(png(4, 4, 8, 7, b"\0" * 99), id="no-such-colour-type"),
        pytest.param(png(4, 4, 3, RGB, b"\0" * 99), id="no-such-depth"),
        pytest.param(png(2, 1, 8, RGB, b"\x09" + b"\0" * 6), id="no-such-filter"),
        pytest.param(png(4, 4, 8, RGB, b"\0"), id="too-few-rows"),
        pytest.param(png(2, 1, 8, RGB, bytes(7)).replace(b"IDAT", b"IDAX"), id="no-data"),
    ],
)
def test_damaged_png(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "damaged|not an image")


def test_palette_index_beyond_the_palette_is_read(tmp_path):
    content = png(2, 1, 8, PALETTE, bytes([0, 0, 200]), chunk(b"PLTE", bytes(6)))
    (tmp_path / "a.png").write_bytes(content)
    assert files.read(tmp_path / "a.png").size == (2, 1)


@pytest.mark.parametrize("data", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk", b""], ids=str)
def test_image_with_damaged_exif_is_read(tmp_path, data):
    IMAGE.save(tmp_path / "a.png", exif=data)
    image = files.read(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(IMAGE))
    files.write(tmp_path / "b.jpg", image)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif", "ppm", "avif"])
def test_damaged_bytes_raise_no_other_error(tmp_path, suffix):
    path, random = tmp_path / f"a.{suffix}", np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x010F] = "maker"
    IMAGE.save(path, dpi=(72, 72), exif=exif.tobytes())
    content = np.frombuffer(path.read_bytes(), np.uint8)
    refusals = 0
    for _ in range(60):
        damaged = content.copy()
        damaged[random.integers(min(len(content), 300), size=3)] = random.integers(256, size=3)
        path.write_bytes(damaged.tobytes())
        try:
            image = files.read(path)
        except InputError:
            refusals += 1
        else:
            files.write(tmp_path / "b.png", image.crop((0, 0, 8, 8)))
    assert refusals > 0


def test_further_images_of_an_mpo_are_ignored(tmp_path):
    path = tmp_path / "a.jpg"
    IMAGE.save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert files.read(path).size == IMAGE.size


@pytest.mark.shared
def test_corpus_of_malformed_files(shared):
    paths = [p for p in sorted((shared / "data/malformed").rglob("*")) if p.is_file()]
    assert len(paths) > 100
    slowest, refusals = 0.0, 0
    for path in paths:
        began = time.process_time()
        try:
            image = files.read(path)
        except InputError as error:
            refusals += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert image.mode in ("L", "LA", "RGB", "RGBA", "I;16", "LA;16", "RGB;16", "RGBA;16")
        slowest = max(slowest, time.process_time() - began)
    assert refusals > 100
    assert slowest < 2
