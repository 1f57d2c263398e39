"""Upscaled videos keep images, times, sound, colours and all other streams of the input."""

import itertools
import logging
from fractions import Fraction

import numpy as np
import pytest

import espan
from tests.support.makers import nearest_net, random_net

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.video.colour import FULL, LIMITED, Colour, Pixels  # noqa: E402
from espan.video.mux import decoding_times  # noqa: E402
from tests.support import clips  # noqa: E402

NET = nearest_net()
FINE = {"model": NET, "dtype": "fp32", "crf": 1}


def rgb(frame) -> np.ndarray:
    """The frame in RGB, converted with its own range and matrix tags."""
    tags = Colour(2, 2, int(frame.colorspace), int(frame.color_range))
    pixels = Pixels(tags).rgb(frame)
    return pixels / np.iinfo(pixels.dtype).max


def enlarged(image: np.ndarray, scale: int = 4) -> np.ndarray:
    return image.repeat(scale, 0).repeat(scale, 1)


def assert_same_images(source, result, level: float = 4 / 255) -> None:
    small, large = clips.frames(source), clips.frames(result)
    assert len(small) == len(large)
    for one, four in zip(small, large, strict=True):
        # Chroma is blurred at the edges of repeated pixels, but the mean colour stays.
        error = rgb(four) - enlarged(rgb(one))
        assert np.abs(error.mean((0, 1))).max() < level / 8
        assert np.sqrt((error**2).mean()) < level


def test_images_and_times_are_kept(tmp_path):
    clip = clips.make(tmp_path / "in.mp4", 12)
    calls = []
    out = espan.upscale_video(
        clip, tmp_path / "out.mp4", device="cpu", progress=lambda *each: calls.append(each), **FINE
    )
    assert out == tmp_path / "out.mp4"
    assert_same_images(clip, out)
    assert clips.times(out) == clips.times(clip) == [Fraction(i, 25) for i in range(12)]
    assert calls == [(i, 12) for i in range(1, 13)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_uneven_times_are_kept_to_the_tick(tmp_path, ending):
    times = [0, 40, 47, 133, 134, 300, 301, 302, 900, 1000]
    clip = clips.make(tmp_path / "in.mkv", times=times, time_base=Fraction(1, 1000))
    out = espan.upscale_video(clip, tmp_path / f"out.{ending}", device="cpu", model=NET)
    assert clips.times(out) == [Fraction(each, 1000) for each in times]


def test_decoding_times():
    assert decoding_times([]) == [] and decoding_times([7]) == [7]
    assert decoding_times([0, 10, 25]) == [0, 10, 25]
    rng = np.random.default_rng(0)
    for _ in range(50):
        shown = np.cumsum(rng.integers(1, 9, 20))
        order = [int(each) for block in np.split(shown, 5) for each in rng.permutation(block)]
        times = decoding_times(order)
        assert all(a < b for a, b in itertools.pairwise(times))
        assert all(dts <= pts for dts, pts in zip(times, order, strict=True))


def test_all_other_streams_are_kept_bit_for_bit(tmp_path):
    clip = clips.make(
        tmp_path / "in.mkv", sound=True, subtitles=True, attachment=True, chapters=True
    )
    out = espan.upscale_video(clip, tmp_path / "out.mkv", device="cpu", model=NET)
    assert clips.packets(out, "audio") == clips.packets(clip, "audio")
    assert clips.packets(out, "subtitles") == clips.packets(clip, "subtitles")
    assert len(clips.packets(out, "audio")) > 10 and len(clips.packets(out, "subtitles")) == 2
    with av.open(str(clip)) as before, av.open(str(out)) as after:
        assert after.chapters() == before.chapters() and len(after.chapters()) == 2
        assert after.metadata["title"] == "a clip"
        assert [each.type for each in after.streams] == [each.type for each in before.streams]
        assert [each.language for each in after.streams] == [None, "deu", "fra", None]
        assert after.streams.video[0].metadata["title"] == "the image"
        assert after.streams.attachments[0].data == b"letters"
        assert after.streams.attachments[0].metadata["filename"] == "font.ttf"


def test_streams_that_the_container_cannot_hold_are_named(tmp_path, caplog):
    clip = clips.make(tmp_path / "in.mkv", sound=True, subtitles=True, chapters=True)
    out = espan.upscale_video(clip, tmp_path / "out.mp4", device="cpu", model=NET)
    assert "left out stream 2, subtitle srt (fra): mp4 cannot hold it" in caplog.text
    assert [data for _, data in clips.packets(out, "audio")] == [
        data for _, data in clips.packets(clip, "audio")
    ]
    with av.open(str(out)) as after:
        assert [each["metadata"]["title"] for each in after.chapters()] == ["part 0", "part 1"]
    again = espan.upscale_video(out, tmp_path / "again.mp4", 1, device="cpu", model=NET)
    with av.open(
        str(again)
    ) as after:  # in MP4 the chapter titles are a track, which must not be copied
        assert len(after.chapters()) == 2 and len(after.streams) == 3


def test_dispositions_are_kept(tmp_path):
    from av.stream import Disposition

    clip = clips.make(tmp_path / "in.mkv", sound=True, subtitles=True)
    marked = tmp_path / "marked.mkv"
    with av.open(str(clip)) as source, av.open(str(marked), "w") as target:
        new = {s.index: target.add_stream_from_template(s, opaque=True) for s in source.streams}
        new[1].disposition, new[2].disposition = Disposition.dub, Disposition.forced
        for packet in source.demux():
            if packet.pts is not None:
                packet.stream = new[packet.stream.index]
                target.mux(packet)
    out = espan.upscale_video(marked, tmp_path / "out.mkv", device="cpu", model=NET)
    with av.open(str(out)) as after:
        assert after.streams[1].disposition & Disposition.dub
        assert after.streams[2].disposition & Disposition.forced


@pytest.mark.parametrize("codec", ["libx264", "libx265", "ffv1", "libsvtav1", "libvpx-vp9"])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_colour_tags_are_kept_and_match_the_pixels(tmp_path, codec, matrix):
    if codec not in av.codecs_available:
        pytest.skip(f"{codec} is not in this PyAV")
    tags = Colour(matrix, {1: 1, 6: 6, 9: 14}[matrix], matrix, LIMITED)
    clip = clips.make(tmp_path / "in.mkv", 3, (32, 32), colour=tags)
    crf = None if codec == "ffv1" else 5
    how = {**FINE, "codec": codec, "crf": crf}
    out = espan.upscale_video(clip, tmp_path / "out.mkv", device="cpu", **how)
    frame = clips.frames(out)[0]
    assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (
        *(tags.primaries, tags.transfer, tags.matrix),
        tags.range,
    )
    assert_same_images(clip, out, 6 / 255)


def test_full_range_stays_full(tmp_path):
    clip = clips.make(tmp_path / "in.mp4", 3, colour=Colour(1, 1, 1, FULL))
    out = espan.upscale_video(clip, tmp_path / "out.mp4", device="cpu", **FINE)
    assert clips.frames(out)[0].color_range == FULL
    assert_same_images(clip, out)


@pytest.mark.parametrize(("height", "matrix"), [(48, 6), (718, 6), (720, 1)])
def test_untagged_colours_are_assumed_with_a_warning_and_tagged(tmp_path, caplog, height, matrix):
    clip = clips.make(tmp_path / "in.mp4", 2, (16, height), colour=None)
    assert clips.frames(clip)[0].colorspace == 2
    out = espan.upscale_video(clip, tmp_path / "out.mp4", 1, device="cpu", **FINE)
    frame = clips.frames(out)[0]
    assert (frame.colorspace, frame.color_range) == (matrix, LIMITED)
    name = {6: "BT.601", 1: "BT.709"}[matrix]
    # One warning per file, even after several calls.
    espan.upscale_video(clip, tmp_path / "again.mp4", 1, device="cpu", **FINE)
    assert len(list(espan.video_frames(clip, 1, device="cpu", model=NET))) == 2
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    message = (
        f"in.mp4: no colour matrix in the file; assuming {name}, because it has {height} lines"
    )
    assert warning.getMessage().endswith(message)


@pytest.mark.parametrize("format", ["yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize("range", [LIMITED, FULL])
def test_ten_bits_stay_ten(tmp_path, format, range):
    tags = Colour(9, 16, 9, range)
    clip = clips.make(tmp_path / "in.mkv", 3, format=format, codec="ffv1", colour=tags)
    out = espan.upscale_video(clip, tmp_path / "out.mkv", device="cpu", model=NET, codec="ffv1")
    frame = clips.frames(out)[0]
    assert frame.format.name == format and frame.color_trc == 16
    luma = [np.frombuffer(f.planes[0], "<u2") for f in (clips.frames(clip)[0], frame)]
    small = luma[0].reshape(24, -1)[:, :32]
    large = luma[1].reshape(96, -1)[:, :128]
    inside = enlarged(small)
    assert np.abs(large.astype(int) - inside).mean() < 1.5
    assert len(np.unique(large)) > 200  # 8 bits would not have so many
    assert_same_images(clip, out, 0.01)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("range", [LIMITED, FULL])
def test_white_black_and_colours_are_exact(bits, matrix, range):
    pixels = Pixels(Colour(2, 2, matrix, range))
    kind = av.VideoFormat("yuv444p" if bits == 8 else "yuv444p10le")
    white = 255 if bits == 8 else 65535
    colours = [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0.8, 0.2, 0.3), (0.1, 0.7, 0.9)]
    for colour in colours:
        image = np.full((8, 16, 3), np.round(np.array(colour) * white))
        image = image.astype(np.uint8 if bits == 8 else np.uint16)
        frame = pixels.frame(image, kind)
        y = np.frombuffer(frame.planes[0], "u1" if bits == 8 else "<u2")[0]
        kr, kb = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
        light = np.dot((kr, 1 - kr - kb, kb), colour)
        step = 1 << (bits - 8)
        expected = light * (2**bits - 1) if range == FULL else (16 + 219 * light) * step
        assert abs(y - expected) <= 1
        back = pixels.rgb(frame).astype(float)
        # Half a step in each of three planes.
        assert np.abs(back - image).max() <= 2.1 * white / (2**bits - 1)
    assert pixels.rgb(frame).dtype == image.dtype


def test_pixel_aspect_ratio_is_kept(tmp_path):
    clip = clips.make(tmp_path / "in.mkv", 2, sar=Fraction(16, 11))
    out = espan.upscale_video(clip, tmp_path / "out.mp4", 3, device="cpu", model=NET)
    with av.open(str(out)) as after:
        video = after.streams.video[0]
        assert video.sample_aspect_ratio == Fraction(16, 11)
        assert (video.width, video.height) == (96, 72)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_frames_are_written_upright(tmp_path, degrees):
    clip = clips.make(tmp_path / "in.mp4", 2, turned=degrees, sar=Fraction(2))
    out = espan.upscale_video(clip, tmp_path / "out.mkv", device="cpu", **FINE)
    before, after = clips.frames(clip)[0], clips.frames(out)[0]
    assert before.rotation % 360 == degrees and after.rotation == 0
    upright = np.rot90(rgb(before), degrees // 90)  # FFmpeg's angles are anticlockwise too
    assert np.abs(rgb(after) - enlarged(upright)).mean() < 2 / 255
    with av.open(str(out)) as result:
        sar = result.streams.video[0].sample_aspect_ratio
        assert sar == (Fraction(2) if degrees == 180 else Fraction(1, 2))


@pytest.mark.parametrize(("scale", "size"), [(2.5, (82, 62)), (3, (100, 76)), (1, (34, 26))])
def test_odd_sizes_are_padded_by_a_line_if_chroma_is_subsampled(tmp_path, scale, size):
    clip = clips.make(tmp_path / "in.mkv", 2, (33, 25), codec="ffv1")
    out = espan.upscale_video(clip, tmp_path / "out.mp4", scale, device="cpu", **FINE)
    frame = clips.frames(out)[0]
    assert (frame.width, frame.height) == size
    pixels = rgb(frame)
    if round(33 * scale) % 2:
        assert np.abs(pixels[:, -1] - pixels[:, -2]).mean() < 0.02


def test_frames_from_python(tmp_path):
    clip = clips.make(tmp_path / "in.mp4", 5, turned=90)
    net = random_net()
    up = espan.Upscaler(net, device="cpu", dtype="fp32")
    got = list(espan.video_frames(clip, 4, device="cpu", model=net, dtype="fp32"))
    assert [seconds for seconds, _ in got] == [i / 25 for i in range(5)]
    tags = Pixels(clips.TAGGED)
    for (_, image), frame in zip(got, clips.frames(clip), strict=True):
        expected = up(np.ascontiguousarray(np.rot90(tags.rgb(frame))))
        np.testing.assert_array_equal(image, expected)
    assert got[0][1].dtype == np.uint8 and got[0][1].shape == (128, 96, 3)


def test_frames_of_ten_bits_are_uint16(tmp_path):
    clip = clips.make(tmp_path / "in.mkv", 2, format="yuv420p10le")
    _, image = next(espan.video_frames(clip, device="cpu", model=NET))
    assert image.dtype == np.uint16
    small = clips.image(0, deep=True)
    assert abs(image.mean() - small.mean()) < 65535 / 255
