"""Row streaming of large results: same pixels, little memory, atomic files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from espan import LimitError, OutputError, Upscaler, batch
from espan.execution import streaming
from espan.images import files
from espan.images.image16 import Image16
from espan.images.resize import RowByRow, resize, resize_rows
from tests.support.makers import free_memory, noise, random_net

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MODES = {
    "L": ((), np.uint8),
    "LA": ((2,), np.uint8),
    "RGB": ((3,), np.uint8),
    "RGBA": ((4,), np.uint8),
    "I;16": ((), np.uint16),
    "RGB;16": ((3,), np.uint16),
    "RGBA;16": ((4,), np.uint16),
}
# Windows of 46 x 60 pixels and more: three rows of tiles.
TILES = {"device": "cpu", "tile": (40, 60)}


@pytest.fixture(scope="module")
def up():
    return Upscaler(random_net(), **TILES)


def made(mode: str, height: int = 107, width: int = 90):
    channels, dtype = MODES[mode]
    pixels = noise(height, width, *channels, dtype=dtype)
    if channels in ((2,), (4,)):
        pixels[20:60, 30:80, -1] = 0
    colour16 = dtype == np.uint16 and channels
    return Image16(pixels) if colour16 else Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("mode", "suffix", "scale"),
    [
        *((mode, suffix, 4) for mode in MODES for suffix in ("png", "tif")),
        ("RGB", "png", 3.3),
        ("RGBA;16", "tif", 2.7),
        ("LA", "tif", 1),
    ],
)
def test_the_same_pixels_as_without_streaming(tmp_path, up, mode, suffix, scale):
    image, output = made(mode), tmp_path / f"a.{suffix}"
    steps = []
    streaming.stream_upscaled(output, up, image, scale, lambda *done: steps.append(done))
    result = files.read(output)
    assert result.mode == mode
    np.testing.assert_array_equal(np.asarray(result), np.asarray(up(image, scale)))
    assert len(steps) > 3 and steps[-1] == (107 * 90, 107 * 90)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("tile", ["auto", None, (40, 48)], ids=str)
def test_of_any_precision_and_tile(tmp_path, dtype, tile):
    up, image = Upscaler(random_net(), device="cpu", dtype=dtype, tile=tile), made("RGB")
    streaming.stream_upscaled(tmp_path / "a.png", up, image, 4)
    result = np.asarray(files.read(tmp_path / "a.png"))
    np.testing.assert_array_equal(result, np.asarray(up(image)))


@pytest.mark.parametrize("failing", [0, 4, 8])
def test_out_of_memory_in_the_middle_of_a_row_of_tiles(tmp_path, failing):
    up, image = (
        Upscaler(random_net(), dtype="fp32", **TILES),
        made("RGB", 130, 170),
    )
    expected = np.asarray(up(image))
    forward, calls = up._runner._forward, []

    def tight(x, dtype):
        calls.append(None)
        if len(calls) == failing + 1:
            raise torch.OutOfMemoryError("no memory")
        return forward(x, dtype)

    up._runner._forward = tight
    streaming.stream_upscaled(tmp_path / "a.png", up, image, 4)
    assert len(calls) > 12
    difference = np.asarray(files.read(tmp_path / "a.png")).astype(int) - expected
    assert np.abs(difference).max() <= 1  # other windows may round differently


def test_profile_exif_and_resolution_are_kept(tmp_path, up):
    exif = Image.Exif()
    exif[0x010F] = "Zenith"
    exif.get_ifd(0x8769).update({0xA002: 2, 0xA003: 3})
    image = made("RGB")
    image.info = {"icc_profile": PROFILE, "exif": exif.tobytes(), "dpi": (300, 300)}
    for suffix in ("png", "tif"):
        streaming.stream_upscaled(tmp_path / f"a.{suffix}", up, image, 4)
        with Image.open(tmp_path / f"a.{suffix}") as result:
            assert result.info["icc_profile"] == PROFILE
            assert [round(float(each)) for each in result.info["dpi"]] == [300, 300]
            assert result.getexif()[0x010F] == "Zenith"
            assert result.getexif().get_ifd(0x8769)[0xA002] == 360


@pytest.mark.parametrize(
    ("name", "large", "streamed"),
    [
        ("a.png", True, True),
        ("a.tif", True, True),
        ("a.webp", True, False),
        ("a.png", False, False),
    ],
)
def test_streaming_is_used_for_large_results_of_these_formats(
    tmp_path, monkeypatch, up, name, large, streamed
):
    monkeypatch.setattr(streaming, "LARGE", 107 * 90 * 16 - large)
    path = files.write(tmp_path / "in.png", made("RGB"))
    used, stream_upscaled = [], streaming.stream_upscaled
    monkeypatch.setattr(
        streaming, "stream_upscaled", lambda *all: (used.append(all), stream_upscaled(*all))[1]
    )
    assert up(path, output=tmp_path / name) == tmp_path / name
    assert bool(used) is streamed
    assert files.read(tmp_path / name).size == (360, 428)


def test_failure_keeps_the_old_file(tmp_path, up):
    (tmp_path / "a.png").write_bytes(b"old")

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streaming.stream_upscaled(tmp_path / "a.png", up, made("RGB"), 4, stop)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_is_named(tmp_path, monkeypatch, up, suffix):
    opened = Path.open

    def full(self, *how, **options):
        return opened(Path("/dev/full") if how == ("wb",) else self, *how, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match=rf"a\.{suffix}: could not be written: No space left"):
        streaming.stream_upscaled(tmp_path / f"a.{suffix}", up, made("RGB"), 4)
    assert not [*tmp_path.iterdir()]


def test_memory_is_checked_before_the_work(tmp_path, monkeypatch):
    up = Upscaler(random_net(), dtype="fp32", **TILES)
    free_memory(monkeypatch, 2**20)
    with pytest.raises(LimitError, match="row by row"):
        streaming.stream_upscaled(tmp_path / "a.png", up, made("RGB"), 4)


@pytest.mark.parametrize(("before", "after"), [(40, 33), (40, 10), (33, 40), (7, 7), (5, 1)])
def test_resize_row_by_row(before, after):
    whole = noise(before, 9, 3)
    expected = resize(whole, (after, 5))
    small = RowByRow(before, (after, 5))
    random, rows, parts = np.random.default_rng(0), 0, []
    while rows < before:
        step = int(random.integers(1, 6))
        parts.append(small(whole[rows : rows + step]))
        rows += step
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    np.testing.assert_array_equal(resize_rows(whole, (after, 5), (0, after)), expected)
    np.testing.assert_array_equal(resize_rows(whole, (after, 5), (after - 1, after)), expected[-1:])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_strips_are_compressed_in_parallel(tmp_path, monkeypatch, threads, suffix):
    monkeypatch.setattr(f"espan.images.files.{'png' if suffix == 'png' else 'tiff'}.STRIP", 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    ramp = np.arange(90, dtype=np.uint8)
    pixels = np.concatenate(  # an image for which each PNG filter is the best
        [
            np.tile(noise(40, 1, 3), (1, 90, 1)),
            np.tile(noise(1, 90, 3), (40, 1, 1)),
            (ramp[:40, None, None] + ramp[None, :, None]) * np.ones(3, np.uint8),
        ]
    )
    path = files.write(tmp_path / f"a.{suffix}", Image.fromarray(pixels))
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    assert path.stat().st_size < pixels.size / (4 if suffix == "png" else 2)


def test_bigtiff_beyond_4_gb(tmp_path, monkeypatch):
    monkeypatch.setattr("espan.images.files.tiff.CLASSIC", 1000)
    exif = Image.Exif()
    exif[0x010F] = "Zenith"
    exif.get_ifd(0x8769)[0x829A] = 0.5
    image = made("RGB;16")
    image.info = {"icc_profile": PROFILE, "exif": exif.tobytes()}
    path = files.write(tmp_path / "a.tif", image)
    assert path.read_bytes()[:4] == b"II+\0"
    again = files.read(path)
    np.testing.assert_array_equal(again.pixels, image.pixels)
    assert again.info["icc_profile"] == PROFILE
    kept = Image.Exif()
    kept.load(again.info["exif"])
    assert kept[0x010F] == "Zenith" and kept.get_ifd(0x8769)[0x829A] == 0.5


# Peak memory of a process: a row of tiles, then a result of 48 megapixels of the same width.
MEASURE = """
import json, sys
import numpy as np
import torch
from PIL import Image
from espan import Upscaler
from espan.execution import streaming
from tests.support.makers import random_net
from tests.execution.test_streaming import peak

torch.set_num_threads(2)
up = Upscaler(random_net(), device="cpu", dtype="fp32", tile=(240, 240))
def run(height):
    pixels = np.random.default_rng(0).integers(256, size=(height, 600, 3), dtype=np.uint8)
    streaming.stream_upscaled(sys.argv[1], up, Image.fromarray(pixels), 4)
    return peak()
small = run(600)
up._runner._forward = lambda x, dtype: x.new_zeros(1, 3, *(4 * side for side in x.shape[2:]))
print(json.dumps([small, run(5000)]))
"""


def peak() -> int:
    # Not ru_maxrss, which a new process inherits from its parent.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_memory_does_not_hold_the_result(tmp_path, suffix):
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / f"a.{suffix}")],
        capture_output=True,
        text=True,
        check=True,
    )
    small, large = json.loads(result.stdout)
    # The image in PIL and in numpy, and some slack. The result would take 16 times as much.
    assert large - small < 8 * 600 * 5000 * 3


def test_folders_stream_large_results(tmp_path, monkeypatch, up):
    monkeypatch.setattr(streaming, "LARGE", 0)
    used, stream_upscaled = [], streaming.stream_upscaled
    monkeypatch.setattr(
        streaming, "stream_upscaled", lambda *all: (used.append(all[0]), stream_upscaled(*all))[1]
    )
    path = files.write(tmp_path / "in.png", made("RGBA;16"))
    (outcome,) = batch.run(batch.plan([path], tmp_path / "a.png"), [up], 4)
    assert (outcome.status, outcome.width, used) == ("done", 360, [tmp_path / "a.png"])
    expected = up(files.read(path))
    np.testing.assert_array_equal(files.read(tmp_path / "a.png").pixels, expected.pixels)
