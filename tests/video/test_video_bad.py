"""Bad videos and settings: clear messages, no partial files, exit codes."""

import itertools

import numpy as np
import pytest

import espan
from espan.cli import main
from espan.errors import InputError, OutputError
from tests.support.makers import nearest_net, python

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.video.convert import Options  # noqa: E402
from tests.support import clips  # noqa: E402

NET = nearest_net()


@pytest.fixture
def clip(tmp_path):
    return clips.make(tmp_path / "in.mp4", 12)


def names(folder) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def spoiled(source, target, which: int, kind: str):
    """A copy of a clip with one of its packets damaged."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [each for each in old.demux(video=0) if each.pts is not None]
        for number, packet in enumerate(packets):
            data = bytes(packet)
            if number == which:
                data = data[: len(data) // 2] if kind == "cut" else b"\x55" * len(data)
            copy = av.Packet(data)
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
            copy.stream = stream
            new.mux(copy)
    return target


def test_empty_text_missing_and_soundless(tmp_path):
    for name, content, said in [
        ("empty.mp4", b"", "empty file"),
        ("text.mp4", b"no video at all", "invalid data"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: {said}"):
            espan.upscale_video(path, tmp_path / "out.mp4", device="cpu", model=NET)
    with pytest.raises(InputError, match=r"none\.mp4: no such file"):
        espan.upscale_video(tmp_path / "none.mp4", tmp_path / "out.mp4", device="cpu", model=NET)
    assert names(tmp_path) == ["empty.mp4", "text.mp4"]


def test_a_file_with_only_sound_is_refused(tmp_path):
    sound = clips.make(tmp_path / "both.mkv", sound=True)
    alone = tmp_path / "sound.mkv"
    with av.open(str(sound)) as source, av.open(str(alone), "w") as target:
        new = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.pts is not None:
                packet.stream = new
                target.mux(packet)
    with pytest.raises(InputError, match=r"sound\.mkv: no video stream"):
        espan.upscale_video(alone, tmp_path / "out.mkv", device="cpu", model=NET)


def test_no_frames(tmp_path, clip):
    bad = spoiled(clips.make(tmp_path / "one.mp4", 1), tmp_path / "bad.mp4", 0, "junk")
    with pytest.raises(InputError, match=r"bad\.mp4: no frame could be decoded"):
        espan.upscale_video(bad, tmp_path / "out.mp4", device="cpu", model=NET)


@pytest.mark.parametrize("codec", ["mpeg4", "libx265"])
@pytest.mark.parametrize("kind", ["cut", "junk"])
def test_a_damaged_frame_is_named_or_replaced_by_its_neighbour(tmp_path, caplog, codec, kind):
    whole = clips.make(tmp_path / "in.mkv", 12, (64, 64), codec=codec)
    bad = spoiled(whole, tmp_path / "bad.mkv", 5, kind)
    out = tmp_path / "out.mkv"
    with pytest.raises(InputError, match=r"bad\.mkv: frame 5 \(0\.200 s\) cannot be decoded"):
        espan.upscale_video(bad, out, device="cpu", model=NET)
    assert not out.exists()
    espan.upscale_video(bad, out, device="cpu", model=NET, on_error="repeat", dtype="fp32", crf=1)
    assert clips.times(out) == clips.times(whole)
    if kind == "cut":  # decoders return an image for a cut packet
        return
    assert "frame 5 (0.200 s) cannot be decoded" in caplog.text
    images = [frame.to_ndarray(format="rgb24").astype(int) for frame in clips.frames(out)]
    steps = [np.abs(b - a).mean() for a, b in itertools.pairwise(images)]
    assert steps[4] < 0.2 * steps[0]  # frame 5 is frame 4 again


def test_frames_that_depend_on_a_damaged_frame_are_kept(tmp_path, clip, caplog):
    bad = spoiled(clip, tmp_path / "bad.mp4", 5, "junk")
    out = espan.upscale_video(bad, tmp_path / "out.mp4", device="cpu", model=NET, on_error="repeat")
    assert len(clips.frames(out)) == 12 and "bad.mp4: frame" in caplog.text


def test_a_file_that_ends_early_without_an_error(tmp_path, caplog):
    whole = clips.make(tmp_path / "in.mkv", 90, options={"g": "10"})
    short = tmp_path / "short.mkv"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 5])
    with pytest.raises(InputError, match=r"short\.mkv: truncated: last frame at .* of 3\.6 s"):
        espan.upscale_video(short, tmp_path / "out.mkv", device="cpu", model=NET)
    out = espan.upscale_video(
        short, tmp_path / "out.mkv", device="cpu", model=NET, on_error="repeat"
    )
    assert 1 < len(clips.frames(out)) < 60 and "short.mkv: truncated" in caplog.text


def test_a_truncated_file(tmp_path, caplog):
    whole = clips.make(
        tmp_path / "in.mov", 40, (64, 64), codec="mjpeg", format="yuvj420p", options={}
    )
    moved = espan.upscale_video(
        whole, tmp_path / "first.mp4", 1, device="cpu", model=NET
    )  # writes the index at the beginning
    short = tmp_path / "short.mp4"
    short.write_bytes(moved.read_bytes()[: moved.stat().st_size // 2])
    with pytest.raises(InputError, match=r"short\.mp4: (cannot be read from )?frame \d+"):
        espan.upscale_video(short, tmp_path / "out.mp4", device="cpu", model=NET)
    out = espan.upscale_video(
        short, tmp_path / "out.mp4", device="cpu", model=NET, on_error="repeat"
    )
    assert 1 <= len(clips.frames(out)) <= 40 and "short.mp4" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": "h269"}, r"codec: expected a video encoder \(libx264, .*\), got 'h269'"),
        ({"codec": "aac"}, r"codec: expected a video encoder .*, got 'aac'"),
        (
            {"pix_fmt": "yuv420p16le"},
            r"pix_fmt: libx264 does not support 'yuv420p16le'; it supports yuv",
        ),
        ({"codec": "ffv1", "crf": 3}, r"crf: ffv1 has no constant quality"),
        ({"codec": "ffv1", "preset": "fast"}, r"preset: ffv1 has no such setting"),
        ({"on_error": "hope"}, r"on_error: expected one of stop, repeat, got 'hope'"),
        ({"scale": 65}, r"scale: expected 1 to 64"),
    ],
)
def test_settings(clip, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        espan.upscale_video(clip, tmp_path / "out.mkv", device="cpu", model=NET, **options)
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("output", "options", "error", "said"),
    [
        ("out.xyz", {}, InputError, r"out\.xyz: not the suffix of a video container; try \.mp4"),
        ("out.png", {}, InputError, r"out\.png: image2 cannot hold a video"),
        ("out.wav", {}, InputError, r"out\.wav: wav cannot hold a video"),
        ("in.mp4", {}, InputError, r"in\.mp4: would replace its input"),
        ("none/out.mp4", {}, OutputError, r"none: no such folder"),
        ("out.webm", {"codec": "libx264"}, OutputError, r"webm cannot hold libx264"),
        ("out.mkv", {"preset": "warp"}, InputError, r"libx264 refuses .*preset warp"),
    ],
)
def test_outputs(clip, tmp_path, output, options, error, said):
    before = clip.read_bytes()
    with pytest.raises(error, match=said):
        espan.upscale_video(clip, tmp_path / output, device="cpu", model=NET, **options)
    assert clip.read_bytes() == before and names(tmp_path) == ["in.mp4"]


def test_a_matrix_that_cannot_be_converted(tmp_path):
    tags = clips.Colour(9, 16, 14, clips.LIMITED)
    clip = tmp_path / "in.mkv"
    with av.open(str(clip), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height = 32, 24
        video.codec_context.colorspace = tags.matrix
        frame = av.VideoFrame(32, 24, "yuv420p")
        frame.colorspace = tags.matrix
        out.mux(video.encode(frame))
        out.mux(video.encode(None))
    with pytest.raises(InputError, match=r"in\.mkv: colour matrix 14 \(H\.273\) is not supported"):
        espan.upscale_video(clip, tmp_path / "out.mkv", device="cpu", model=NET)


def test_a_playlist_named_like_a_video_opens_no_other_file(clip, tmp_path):
    """Otherwise a file from a stranger could read local files or send requests."""
    for text in (
        f"ffconcat version 1.0\nfile {clip.name}\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/{clip.name}\n"
        "#EXT-X-ENDLIST\n",
    ):
        list_of_files = tmp_path / "list.mp4"
        list_of_files.write_text(text)
        with pytest.raises(InputError, match=r"list\.mp4: (not a video in a known|invalid data)"):
            espan.upscale_video(list_of_files, tmp_path / "out.mp4", device="cpu", model=NET)
        assert not (tmp_path / "out.mp4").exists()


def test_names_with_colons_and_percents(clip, tmp_path):
    folder = tmp_path / "http:%03d"
    folder.mkdir()
    named = clip.rename(folder / "12:30 #1 ä%d.mp4")
    out = espan.upscale_video(named, folder / "a:b.mp4", device="cpu", model=NET)
    assert len(clips.frames(out)) == 12


@pytest.mark.parametrize("limit", [3_000, 12_000])
def test_a_full_disk_is_one_clear_message(tmp_path, limit):
    """Simulated by a limit on the file size, which the segments or the result exceed."""
    clip = clips.make(tmp_path / "in.mp4", 40, (64, 48), sound=True)
    out = tmp_path / "out.mkv"
    code = f"""
import resource, espan
from espan.video import convert
from tests.support.makers import random_net
convert.SEGMENT = 2
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    espan.upscale_video({str(clip)!r}, {str(out)!r}, device="cpu", model=random_net(), dtype="fp32")
except espan.OutputError as error:
    print(error)
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().lower() == f"{out}: could not be written: file too large"
    assert not out.exists() and not list(tmp_path.glob(".espan-*.part"))


@pytest.fixture
def upscale(weights):
    def run(*arguments) -> int:
        return main(
            ["upscale", "--device=cpu", "-n", weights, "--dtype", "fp32", *map(str, arguments)]
        )

    return run


def test_exit_codes(upscale, clip, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    assert upscale(tmp_path / "bad.mp4", clip, "-o", f"{tmp_path}/big/") == 1
    shown = capsys.readouterr().err
    assert "bad.mp4: invalid data" in shown and "1 of 2 failed" in shown
    assert names(tmp_path / "big") == ["in.mp4"]
    assert upscale(clip, "--codec", "h269") == 2
    assert upscale(clip, tmp_path / "bad.mp4", "-o", tmp_path / "one.mp4") == 2
    assert "there are several" in capsys.readouterr().err


def test_without_pyav_the_error_says_what_to_install(clip, tmp_path):
    code = f"""
import sys
sys.modules["av"] = None
from espan.cli import main
import espan
print(espan.upscale_video.__name__, espan.video_frames.__name__)
sys.exit(main(["upscale", "--device=cpu", {str(clip)!r}]))
"""
    result = python(code)
    assert result.returncode == 2 and result.stdout == "upscale_video video_frames\n"
    assert result.stderr == "espan: video needs av: pip install 'espan[video]'\n"


def test_options_are_checked_when_made():
    with pytest.raises(InputError, match="on_error"):
        Options(on_error="")
