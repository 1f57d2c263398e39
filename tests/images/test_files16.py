"""Files with more than 8 bits are read in full depth, never reduced, and written back."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import espan
from espan import InputError, LimitError, OutputError, Upscaler
from espan.images import files
from espan.images.image16 import Image16
from espan.options import Limits
from espan.video import scheduling
from tests.images.test_bad_files import tiff
from tests.support.makers import (
    GREY_ALPHA,
    RGB,
    RGB_ALPHA,
    chunk,
    nearest_net,
    noise,
    png,
    scanlines,
)

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
KINDS = [(RGB, 3, "RGB;16"), (RGB_ALPHA, 4, "RGBA;16"), (GREY_ALPHA, 2, "LA;16")]


@pytest.mark.parametrize(("colour", "channels", "mode"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (5, 4)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_png_of_every_kind(tmp_path, size, colour, channels, mode):
    pixels = noise(*size, channels, dtype=np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(png(size[1], size[0], 16, colour, scanlines(pixels)))
    image = files.read(path)
    assert (image.mode, image.size) == (mode, size[::-1])
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_transparent_colour_is_compared_in_all_16_bits(tmp_path):
    pixels = np.array([[[1, 2, 3], [1, 2, 4], [257, 2, 3]]], np.uint16)
    content = png(
        3, 1, 16, RGB, scanlines(pixels), chunk(b"tRNS", np.array([1, 2, 3], ">u2").tobytes())
    )
    (tmp_path / "a.png").write_bytes(content)
    image = files.read(tmp_path / "a.png")
    assert image.mode == "RGBA;16"
    np.testing.assert_array_equal(image.pixels[..., :3], pixels)
    assert image.pixels[..., 3].tolist() == [[0, 65535, 65535]]


def test_uncompressed_tiff(tmp_path):
    pixels = noise(5, 4, 3, dtype=np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(4, 5, 16, 3, pixels.tobytes()))
    np.testing.assert_array_equal(np.asarray(files.read(tmp_path / "a.tif")), pixels)


@pytest.mark.parametrize("kind", ["<classic", ">classic", "<big"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("tile", [None, (16, 16)], ids=["strips", "tiles"])
def test_tiff_of_other_writers(tmp_path, channels, compression, kind, tile):
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes these files")
    pixels = noise(50, 40, channels, dtype=np.uint16)
    options = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        photometric="rgb",
        compression=compression,
        byteorder=kind[0],
        bigtiff=kind == "<big",
        tile=tile,
        **options,
    )
    np.testing.assert_array_equal(np.asarray(files.read(tmp_path / "a.tif")), pixels)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_premultiplied_alpha_becomes_straight(tmp_path, compression):
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes these files")
    straight = noise(9, 8, 4, dtype=np.uint16)
    straight[0, 0, 3], straight[0, 1, 3] = 0, 65535
    alpha = straight[..., 3:] / 65535
    pixels = np.concatenate([np.round(straight[..., :3] * alpha), straight[..., 3:]], 2)
    options = {"photometric": "rgb", "extrasamples": ["assocalpha"], "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(np.uint16), **options)
    read = np.asarray(files.read(tmp_path / "a.tif"))
    np.testing.assert_array_equal(read[..., 3], straight[..., 3])
    error = np.abs(read[..., :3] - straight[..., :3].astype(float))
    assert (error * alpha <= 0.5 + alpha).all()
    assert (read[0, 0] == 0).all()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((50, 40, 3), {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}),
        ((50, 40, 2), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    ],
    ids=["big-endian-bigtiff", "grey-alpha"],
)
def test_tiffs_that_pillow_cannot_read(tmp_path, shape, options):
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes these files")
    tifffile.imwrite(tmp_path / "a.tif", noise(*shape, dtype=np.uint16), **options)
    with pytest.raises(InputError, match=r"a\.tif: a TIFF .* convert it to PNG"):
        files.read(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_is_not_reduced_to_8_bits(tmp_path, compression):
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes these files")
    pixels = noise(3, 50, 40, dtype=np.uint16)
    options = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(InputError, match=r"a\.tif: .*(16-bit colour|damaged)"):
        files.read(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_for_8_bits(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = noise(5, 4, 3, dtype=np.uint16)
    eight = Image.fromarray((pixels >> 8).astype(np.uint8))
    eight.save(tmp_path / "8.png", exif=exif)
    content = png(
        4, 5, 16, RGB, scanlines(pixels), chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    )
    (tmp_path / "16.png").write_bytes(content)
    image = files.read(tmp_path / "16.png")
    np.testing.assert_array_equal(image.pixels >> 8, files.read(tmp_path / "8.png"))
    assert set(image.pixels.ravel()) == set(pixels.ravel())


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_round_trip_is_exact(tmp_path, channels, suffix):
    exif = Image.Exif()
    exif[0x010F] = "Zenith"
    exif.get_ifd(0x8769).update({0xA002: 2, 0xA003: 3, 0x829A: 0.5})
    info = {"icc_profile": PROFILE, "exif": exif.tobytes(), "dpi": (300, 150)}
    image = Image16(noise(300, 37, channels, dtype=np.uint16), info)
    path = tmp_path / f"a.{suffix}"
    if (suffix, channels) == ("tif", 2):
        with pytest.raises(OutputError, match="TIFF cannot hold LA;16"):
            files.write(path, image)
        return
    again = files.read(files.write(path, image))
    np.testing.assert_array_equal(again.pixels, image.pixels)
    assert again.info["icc_profile"] == PROFILE
    assert [float(each) for each in again.info["dpi"]] == pytest.approx([300, 150], abs=0.1)
    kept = Image.Exif()
    kept.load(again.info["exif"])
    details = kept.get_ifd(0x8769)
    assert kept[0x010F] == "Zenith" and details[0x829A] == 0.5
    assert (details[0xA002], details[0xA003]) == (37, 300)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_other_readers(tmp_path, suffix):
    image = Image16(noise(30, 37, 4, dtype=np.uint16))
    path = files.write(tmp_path / f"a.{suffix}", image)
    if suffix == "tif":
        tifffile = pytest.importorskip("tifffile")
        read = tifffile.imread(path)
    else:
        av = pytest.importorskip("av", reason="another decoder of 16-bit PNG")
        with av.open(str(path)) as container:
            read = next(container.decode(video=0)).to_ndarray()
    np.testing.assert_array_equal(read, image.pixels)


def test_wrong_shapes_and_dtypes_of_image16_are_refused():
    pixels = np.zeros((3, 4, 3), np.uint16)
    for wrong in (pixels.astype(np.uint8), pixels[..., 0], pixels[..., :1], None):
        with pytest.raises(InputError, match=r"expected \(H, W, 2..4\) uint16"):
            Image16(wrong)
    one = Image16(pixels)
    assert one == one and one != Image16(pixels)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "avif"])
def test_8_bit_formats_are_refused(tmp_path, suffix):
    with pytest.raises(OutputError, match="cannot hold RGB;16 pixels; choose png"):
        files.write(tmp_path / f"a.{suffix}", Image16(noise(3, 3, 3, dtype=np.uint16)))


def test_16_bits_from_file_to_file(tmp_path):
    pixels = noise(9, 8, 3, dtype=np.uint16)
    path = files.write(tmp_path / "a.png", Image16(pixels, {"icc_profile": PROFILE}))
    up = Upscaler(nearest_net(), device="cpu")
    again = files.read(up(path, output=tmp_path / "b.tif"))
    np.testing.assert_array_equal(again.pixels, np.repeat(np.repeat(pixels, 4, 0), 4, 1))
    assert again.info["icc_profile"] == PROFILE
    assert torch.get_num_threads() > 0 and up(path).mode == "RGB;16"
    large = espan.upscale(path, 4, model=nearest_net(), device="cpu")
    np.testing.assert_array_equal(large.pixels, again.pixels)


@pytest.mark.parametrize("bits", [12, 16])
def test_grey_of_12_bits_and_white_as_0(tmp_path, bits):
    white = 2**bits - 1
    values = [0, 1, white // 2, white]
    content = np.array(values, "<u2").tobytes()
    if bits == 12:  # two pixels are three bytes
        pairs = zip(values[::2], values[1::2], strict=True)
        content = b"".join((a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(4, 1, bits, 1, content, photometric=1 if bits == 12 else 0))
    share, expected = np.asarray(files.read(path))[0] / 65535, np.array(values) / white
    np.testing.assert_allclose(share, expected if bits == 12 else 1 - expected, atol=1e-5)


def test_read_rgb_rounds_to_8_bits(tmp_path):
    pixels = np.array([[[0, 128, 129], [257, 65535, 32896]]], np.uint16)
    path = files.write(tmp_path / "a.png", Image16(pixels))
    assert files.read_rgb(path).tolist() == [[[0, 0, 1], [1, 255, 128]]]


def test_8_bit_avif_is_read_and_written(tmp_path):
    pixels = np.kron(noise(4, 5, 3), np.ones((16, 16, 1), np.uint8))
    path = files.write(tmp_path / "a.avif", Image.fromarray(pixels))
    image = files.read(path)
    assert image.mode == "RGB" and np.abs(np.asarray(image, int) - pixels).mean() < 4


def test_10_bit_avif_is_refused(tmp_path):
    av = pytest.importorskip("av", reason="PyAV writes this file")
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV has no AV1 encoder")
    path = tmp_path / "a.avif"
    with av.open(str(path), "w", format="avif") as container:
        stream = container.add_stream("libsvtav1", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(noise(64, 64, 3), format="rgb24")
        with scheduling.preserved():
            packets = stream.encode(frame.reformat(format="yuv420p10le"))
        container.mux([*packets, *stream.encode(None)])
    with pytest.raises(InputError, match=r"a\.avif: 10-bit colour in AVIF is not supported"):
        files.read(path)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_heic(tmp_path, mode, bits):
    heif = pytest.importorskip("pillow_heif")
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    values = np.kron(
        noise(4, 4, *channels, dtype=np.uint16),
        np.ones((16, 16, *(1 for _ in channels)), np.uint16),
    )
    deep = bits > 8
    kind = {"L": "I;16"}.get(mode, f"{mode};16") if deep else mode
    data = values if deep else (values >> 8).astype(np.uint8)
    image = heif.from_bytes(mode=kind, size=(64, 64), data=data.tobytes())
    heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    try:
        image.save(tmp_path / "a.heic", quality=95, chroma=444)
    finally:
        heif.options.SAVE_HDR_TO_12_BIT = False
    image = files.read(tmp_path / "a.heic")
    assert image.mode == ({"L": "I;16"}.get(mode, f"{mode};16") if deep else mode)
    white = 65535 if deep else 255
    got, expected = np.asarray(image) / white, values / 65535
    assert np.abs(got - expected).mean() < 0.02
    assert got.max() > 0.9


def test_heic_without_pillow_heif_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"a\.heic: .* pip install 'espan\[image\]'"):
        files.read(tmp_path / "a.heic")


def test_heic_is_checked_by_its_header(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(noise(64, 64, 3))).save(tmp_path / "a.heic")
    with pytest.raises(LimitError, match="over the limit of 4,095"):
        files.read(tmp_path / "a.heic", limits=Limits(max_input=64 * 64 - 1))
    content = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "a.heic").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.heic: damaged or truncated"):
        files.read(tmp_path / "a.heic")
