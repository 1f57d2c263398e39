"""Real files: covers, second videos, recordings that do not begin at 0."""

from fractions import Fraction

import numpy as np
import pytest

import espan
from tests.support.makers import nearest_net

av = pytest.importorskip("av", reason="PyAV is not installed")

from av.stream import Disposition  # noqa: E402

from tests.support import clips  # noqa: E402

NET = nearest_net()


def with_cover(clip, target, mark: int, codec: str = "mjpeg"):
    """The clip after a video stream of one frame with the disposition `mark`."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        cover = out.add_stream(codec, rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = mark
        video = out.add_stream_from_template(source.streams.video[0])
        frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 90, np.uint8), "rgb24")
        out.mux(cover.encode(frame))
        out.mux(cover.encode(None))
        for packet in source.demux(video=0):
            if packet.pts is not None:
                packet.stream = video
                out.mux(packet)
    return target


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_cover_image_is_copied(tmp_path, ending):
    clip = with_cover(
        clips.make(tmp_path / "in.mkv", 6), tmp_path / "covered.mp4", Disposition.attached_pic
    )
    out = espan.upscale_video(clip, tmp_path / f"out.{ending}", device="cpu", model=NET)
    with av.open(str(clip)) as before, av.open(str(out)) as after:
        covers = [
            [bytes(p) for p in each.demux() if p.size and p.stream.name == "mjpeg"]
            for each in (before, after)
        ]
        assert covers[0] == covers[1] and len(covers[0][0]) > 100
        marked = [s for s in after.streams.video if s.disposition & Disposition.attached_pic]
        assert len(marked) == 1 and marked[0].width == 16
        (main,) = [s for s in after.streams.video if s not in marked]
        assert (main.width, main.height, main.frames or 6) == (128, 96, 6)


def test_a_second_video_is_left_out_and_named(tmp_path, caplog):
    clip = with_cover(clips.make(tmp_path / "in.mkv", 6), tmp_path / "two.mkv", 0)
    out = espan.upscale_video(clip, tmp_path / "out.mkv", device="cpu", model=NET)
    assert "mjpeg: a second video" in caplog.text
    with av.open(str(out)) as after:
        assert len(after.streams.video) == 1


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_recording_that_begins_late_is_moved_to_0(tmp_path, ending):
    late = 90_000 * 36_000
    clip = clips.make(
        tmp_path / "in.ts",
        8,
        times=[late + 3600 * i for i in range(8)],
        time_base=Fraction(1, 90_000),
    )
    before = clips.times(clip)
    assert before[0] > 30_000
    out = espan.upscale_video(clip, tmp_path / f"out.{ending}", device="cpu", model=NET)
    after = clips.times(out)
    if ending != "ts":  # an MPEG-TS muxer begins a little later
        assert after[0] == 0
    assert [each - after[0] for each in after] == [each - before[0] for each in before]


def test_sound_stays_in_sync(tmp_path):
    clip = clips.make(tmp_path / "in.ts", 30, sound=True)
    out = espan.upscale_video(clip, tmp_path / "out.mp4", device="cpu", model=NET)
    (video, sound), (new_video, new_sound) = (
        [clips.packets(path, kind) for kind in ("video", "audio")] for path in (clip, out)
    )
    before = sound[0][0] - min(time for time, _ in video)
    after = new_sound[0][0] - min(time for time, _ in new_video)
    assert abs(before - after) < Fraction(1, 1000)  # an MP4's edits count in milliseconds
    assert len(new_sound) == len(sound)


def test_grey_video_stays_grey(tmp_path):
    clip = clips.make(tmp_path / "in.mkv", 3, codec="ffv1", format="gray")
    out = espan.upscale_video(
        clip, tmp_path / "out.mkv", device="cpu", model=NET, dtype="fp32", codec="ffv1"
    )
    before, after = clips.frames(clip)[1], clips.frames(out)[1]
    assert after.format.name == "gray"
    small = np.frombuffer(before.planes[0], "u1").reshape(24, -1)[:, :32].astype(int)
    large = np.frombuffer(after.planes[0], "u1").reshape(96, -1)[:, :128].astype(int)
    assert np.abs(large - small.repeat(4, 0).repeat(4, 1)).max() <= 1


def test_rgb_video_is_tagged_with_its_new_matrix(tmp_path):
    clip = clips.make(
        tmp_path / "in.mkv",
        3,
        codec="libx264rgb",
        format="rgb24",
        colour=None,
        options={"crf": "0"},
    )
    out = espan.upscale_video(
        clip, tmp_path / "out.mp4", device="cpu", model=NET, pix_fmt="yuv420p"
    )
    frame = clips.frames(out)[0]
    assert (frame.colorspace, frame.color_range) == (6, 1)
    error = frame.to_ndarray(format="rgb24").astype(float).mean((0, 1)) - clips.image(0).mean(
        (0, 1)
    )
    assert np.abs(error).max() < 2
