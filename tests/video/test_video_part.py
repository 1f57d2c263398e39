"""`start`, `end` and `preview`: same frames as in the full result, all streams cut to match."""

import itertools
from fractions import Fraction

import pytest

import espan
from espan.cli import main
from espan.errors import InputError
from espan.video.options import OptionError, Options, seconds
from tests.support.makers import nearest_net

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.video import convert, cutting, source  # noqa: E402
from tests.support import clips  # noqa: E402

HOW = {"device": "cpu", "model": nearest_net(), "codec": "ffv1"}
# Formats that seek to keyframes, to any packet, and not at all; and open groups of pictures (GOPs),
# whose first frames depend on the group before.
FILES = {
    "in.mkv": {"options": {"g": "10"}},
    "in.mp4": {"options": {"g": "10", "x264-params": "open-gop=1:bframes=3"}},
    "open.mkv": {"codec": "libx265", "options": {"x265-params": "keyint=10:log-level=error"}},
    "in.ts": {"options": {"g": "10"}},
    "in.avi": {"codec": "mpeg4", "options": {"g": "10", "bf": "2"}},
    "in.h264": {"options": {"g": "10"}},
}


def planes(path) -> list[bytes]:
    return [bytes(frame.planes[0]) for frame in clips.frames(path)]


@pytest.mark.parametrize("name", FILES)
def test_frames_equal_those_of_the_full_video(tmp_path, name):
    clip = clips.make(tmp_path / name, 60, **FILES[name])
    whole = espan.upscale_video(clip, tmp_path / "whole.mkv", 1, **HOW)
    before, times = planes(whole), clips.times(whole)
    assert len(set(before)) > 50  # so that frames can be told apart
    for first, last in ((0, 12), (27, 42), (30, 31), (45, 60)):
        begin = float(times[first])
        end = float(times[last]) if last < 60 else None
        out = espan.upscale_video(clip, tmp_path / "out.mkv", 1, start=begin, end=end, **HOW)
        assert planes(out) == before[first:last]
        moved = [each - clips.times(out)[0] for each in clips.times(out)]
        expected = [each - times[first] for each in times[first:last]]
        assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(moved, expected, strict=True))


def test_a_late_part_is_read_from_a_keyframe_before_it(tmp_path):
    for name in ("in.mkv", "in.mp4", "in.ts"):
        clip = source.probe(clips.make(tmp_path / name, 60, **FILES[name]))
        late = cutting.cut(clip, Options(start=2))
        assert late.seek_to is not None and late.seek_to <= late.start
    raw = cutting.cut(source.probe(clips.make(tmp_path / "in.h264", 60)), Options(start=2))
    assert raw.seek_to is None


def test_the_frame_on_screen_at_the_start_is_the_first(tmp_path):
    times = [0, 40, 1000, 1040, 2000, 2040]
    clip = clips.make(tmp_path / "in.mkv", 6, times=times, time_base=Fraction(1, 1000))
    whole = espan.upscale_video(clip, tmp_path / "whole.mkv", 1, **HOW)
    out = espan.upscale_video(clip, tmp_path / "out.mkv", 1, start=0.5, end="1.5", **HOW)
    assert planes(out) == planes(whole)[1:4]
    assert clips.times(out) == [0, Fraction(1, 2), Fraction(54, 100)]


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_sound_subtitles_and_chapters_are_cut_to_match(tmp_path, ending):
    subtitles = ending == "mkv"
    clip = clips.make(
        tmp_path / f"in.{ending}", 100, sound=True, subtitles=subtitles, chapters=True
    )
    how = {**HOW, "codec": "libx264", "start": 0.15, "end": 1.05}
    out = espan.upscale_video(clip, tmp_path / f"out.{ending}", 1, **how)
    before, after = clips.packets(clip, "audio"), clips.packets(out, "audio")
    assert [data for _, data in after] == [d for t, d in before if 0.15 <= t < 1.05]
    wanted = [t for t, _ in before if 0.15 <= t < 1.05]
    for (new, _), old in zip(after, wanted, strict=True):
        assert abs(new - (old - Fraction(15, 100))) <= Fraction(1, 500)
    with av.open(str(out)) as result:
        found = [
            (float(each["start"] * each["time_base"]), float(each["end"] * each["time_base"]))
            for each in result.chapters()
        ]
        assert found == [(0, 0.05), (0.05, 0.25)]
        if subtitles:  # two lines from 0 s and 0.1 s on, 0.09 s each
            lines = [p for p in result.demux(subtitles=0) if p.size]
            assert [bytes(each) for each in lines] == [b"line 1"]
            assert [(each.pts, each.duration) for each in lines] == [(0, 40)]


def test_a_recording_that_begins_late_counts_from_its_beginning(tmp_path):
    late = 90_000 * 36_000
    times = [late + 3600 * i for i in range(60)]
    clip = clips.make(tmp_path / "in.ts", 60, times=times, time_base=Fraction(1, 90_000))
    out = espan.upscale_video(clip, tmp_path / "out.mkv", 1, start=1, preview=0.4, **HOW)
    whole = espan.upscale_video(clip, tmp_path / "whole.mkv", 1, **HOW)
    assert planes(out) == planes(whole)[25:35]


def test_progress_counts_the_part_and_an_interrupted_part_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "SEGMENT", 5)
    clip, out, calls = (
        clips.make(tmp_path / "in.mkv", 60, **FILES["in.mkv"]),
        tmp_path / "o.mkv",
        [],
    )

    def progress(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == 8:
            raise KeyboardInterrupt

    part = {"start": 1.2, "preview": 0.6, **HOW}
    with pytest.raises(KeyboardInterrupt):
        espan.upscale_video(clip, out, 1, progress=progress, **part)
    espan.upscale_video(clip, out, 1, progress=progress, **part)
    assert calls == [(i, 15) for i in (*range(1, 9), *range(6, 16))]
    unbroken = espan.upscale_video(clip, tmp_path / "unbroken.mkv", 1, **part)
    assert planes(out) == planes(unbroken)
    with pytest.raises(KeyboardInterrupt):
        calls.clear()
        espan.upscale_video(clip, out, 1, progress=progress, **part)
    counted = []
    other = {**part, "start": 1, "progress": lambda done, total: counted.append(done)}
    espan.upscale_video(clip, out, 1, **other)
    assert counted[0] == 1  # frames of another part are not reused


def test_frames_of_a_part_from_python(tmp_path):
    clip = clips.make(tmp_path / "in.mp4", 50, options={"g": "10"})
    how = {"device": "cpu", "model": HOW["model"]}
    whole = [image for _, image in espan.video_frames(clip, 1, **how)]
    got = list(espan.video_frames(clip, 1, start="0:01", end=1.2, **how))
    assert [time for time, _ in got] == [0, 0.04, 0.08, 0.12, 0.16]
    assert all((a == b).all() for (_, a), b in zip(got, whole[25:30], strict=True))


def test_damage_in_a_part_is_named_by_its_time(tmp_path):
    from tests.video.test_video_bad import spoiled

    clip = clips.make(tmp_path / "in.mkv", 60, (64, 64), codec="mpeg4", options={"g": "10"})
    bad = spoiled(clip, tmp_path / "bad.mkv", 45, "junk")
    with pytest.raises(InputError, match=r"bad\.mkv: frame at 1\.800 s cannot be decoded"):
        espan.upscale_video(bad, tmp_path / "out.mkv", 1, start=1.6, **HOW)
    assert not (tmp_path / "out.mkv").exists()
    out = espan.upscale_video(bad, tmp_path / "out.mkv", 1, start=0.4, end=1.2, **HOW)
    assert len(planes(out)) == 20  # the damage lies outside


def test_a_part_of_a_truncated_file(tmp_path):
    whole = clips.make(tmp_path / "in.mkv", 90, options={"g": "10"})
    short = tmp_path / "short.mkv"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 5])
    out = espan.upscale_video(short, tmp_path / "out.mkv", 1, end=0.4, **HOW)
    assert len(planes(out)) == 10
    with pytest.raises(InputError, match=r"short\.mkv: truncated: last frame at .* of 3\.6 s"):
        espan.upscale_video(short, tmp_path / "out.mkv", 1, start=0.4, **HOW)
    with pytest.raises(InputError, match=r"short\.mkv: "):
        espan.upscale_video(short, tmp_path / "out.mkv", 1, start=3, **HOW)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        *((0, 0), (2.5, 2.5), ("90", 90), ("90.25", 90.25), ("1:30", 90), ("01:30.5", 90.5)),
        *(("1:02:03", 3723), ("0:00:00.040", 0.04), (" 7 ", 7), ("100:00:00", 360000)),
    ],
)
def test_times(time, expected):
    assert seconds("start", time) == expected


@pytest.mark.parametrize(
    "time",
    [
        *("", "x", "-1", "1:70", "1:60:00", "1:2:3:4", "1e3", "nan", "inf", "1:", ":1", "1.5:00"),
        *("9" * 5000, -1, float("nan"), float("inf"), 10**400, True, [1], b"1"),
    ],
)
def test_a_wrong_time_is_refused_in_one_line(time):
    with pytest.raises(OptionError, match="start: expected seconds or h:mm:ss, got ") as caught:
        Options(start=time)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": 2, "end": 1}, r"end: expected a time after start, 2 s, got 1 s"),
        ({"start": 1, "end": 1}, r"end: expected a time after start"),
        ({"end": 0}, r"end: expected a time after start, 0 s, got 0 s"),
        ({"preview": 0}, r"preview: expected more than 0 seconds"),
        ({"preview": 1, "end": 1}, r"preview: cannot be used together with end"),
        ({"start": 4}, r"in\.mkv: start: 4 s is beyond the end of the video, 0\.48 s"),
        ({"start": 0.48}, r"in\.mkv: start: 0\.48 s is beyond the end"),
        ({"end": "0:01"}, r"in\.mkv: end: 1 s is beyond the end of the video, 0\.48 s"),
    ],
)
def test_wrong_parts(tmp_path, options, said):
    clip = clips.make(tmp_path / "in.mkv", 12)
    with pytest.raises(InputError, match=said):
        espan.upscale_video(clip, tmp_path / "out.mkv", 1, **options, **HOW)
    assert [each.name for each in tmp_path.iterdir()] == ["in.mkv"]


def test_a_start_beyond_the_end_of_a_video_of_unknown_length(tmp_path):
    clip = clips.make(tmp_path / "in.h264", 12)
    with pytest.raises(InputError, match=r"in\.h264: start: 9 s is beyond the end of the video$"):
        espan.upscale_video(clip, tmp_path / "out.mkv", 1, start=9, **HOW)
    assert not (tmp_path / "out.mkv").exists()


def test_a_preview_may_be_longer_than_the_video(tmp_path):
    clip = clips.make(tmp_path / "in.mkv", 12)
    out = espan.upscale_video(clip, tmp_path / "out.mkv", 1, preview=60, **HOW)
    assert len(clips.frames(out)) == 12


def test_the_command_line(tmp_path, weights, capsys):
    clip = clips.make(tmp_path / "in.mp4", 50)
    command = ["upscale", "--device=cpu", "-n", weights, "-s", "1", str(clip)]
    assert main([*command, "--start", "0:01", "--end", "0:00:01.2"]) == 0
    part = tmp_path / "in_x1_part.mp4"  # the default name is for the full video
    assert len(clips.frames(part)) == 5
    assert main([*command, "--preview", "0.2", "-o", str(tmp_path / "first.mp4")]) == 0
    assert len(clips.frames(tmp_path / "first.mp4")) == 5
    capsys.readouterr()
    assert main([*command, "--start", "soon"]) == 2
    assert main([*command, "--start", "2", "--end", "1"]) == 2
    assert main([*command, "--start", "7"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "start: 7 s is beyond the end of the video, 2.00 s" in lines[2]
    assert main(["upscale", "--device=cpu", "photo.png", "--preview", "1"]) == 2
    assert "preview: applies to videos" in capsys.readouterr().err


def test_times_increase_if_a_frame_is_moved_to_the_start(tmp_path):
    clip = clips.make(tmp_path / "in.mkv", 30)
    out = espan.upscale_video(clip, tmp_path / "out.mkv", 1, start=0.41, end=0.99, **HOW)
    times = clips.times(out)
    assert times[0] == 0 and all(a < b for a, b in itertools.pairwise(times))
    assert len(times) == 15
