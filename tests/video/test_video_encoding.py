"""Encoder settings, scheduling of encoder threads, and the default encoders."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import espan
from espan.errors import OutputError
from espan.video import scheduling
from tests.support.makers import nearest_net

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.video.encoding import _QUALITY  # noqa: E402
from tests.support import clips  # noqa: E402

NET = nearest_net()


@pytest.mark.parametrize("codec", [each for each in _QUALITY if each in av.codecs_available])
def test_a_larger_crf_makes_a_smaller_file(codec, tmp_path):
    clip = clips.make(tmp_path / "in.mp4", 3, (48, 40))
    sizes = []
    for crf in (3, 14, 30):
        out = tmp_path / f"{crf}.mkv"
        try:
            espan.upscale_video(clip, out, device="cpu", model=NET, codec=codec, crf=crf)
        except OutputError:
            if "nvenc" in codec:
                pytest.skip("no encoder in hardware")
            raise
        sizes.append(out.stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("codec", [each for each in _QUALITY if each in av.codecs_available])
def test_encoders_leave_the_scheduling_of_threads_alone(codec, tmp_path):
    """SVT-AV1 sets real-time priority by default, which the system grants only to root."""
    usual, seen = os.sched_getscheduler(0), set()

    def progress(done, total):
        for task in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # the thread has ended
                seen.add(os.sched_getscheduler(int(task.name)))

    clip = clips.make(tmp_path / "in.mp4", 30, (48, 40))
    try:
        espan.upscale_video(
            clip, tmp_path / "out.mkv", device="cpu", model=NET, codec=codec, progress=progress
        )
    except OutputError:
        if "nvenc" in codec:
            pytest.skip("no encoder in hardware")
        raise
    assert seen == {usual} == {os.sched_getscheduler(0)}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_scheduling_is_restored():
    usual = os.sched_getscheduler(0)
    ended, policies = threading.Event(), []

    def work():
        ended.wait(60)
        policies.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    with scheduling.preserved():
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pytest.skip("needs permission for real-time scheduling")
        thread.start()
    ended.set()
    thread.join()
    assert [os.sched_getscheduler(0), *policies] == [usual] * 2


SOFTWARE = [
    (codec, format)
    for codec in ("libx264", "libx265", "libsvtav1", "libvpx-vp9")
    if codec in av.codecs_available
    for format in ("yuv420p", "yuv420p10le")  # some builds have 8 bits only
    if format in (each.name for each in av.Codec(codec, "w").video_formats)
]


@pytest.mark.skipif(not SOFTWARE, reason="this PyAV has no encoder in software")
@pytest.mark.parametrize("quiet", [["-q"], []], ids=["quiet", "usual"])
def test_encoder_libraries_do_not_log(tmp_path, weights, quiet):
    """In a process of their own: libraries write to the stream itself, some only once."""
    commands = []
    for codec, format in SOFTWARE:
        clip = clips.make(tmp_path / f"{format}.mkv", 3, format=format)
        out = tmp_path / f"{codec}-{format}.mkv"
        commands.append(["upscale", str(clip), "--codec", codec, "-o", str(out), "-s", "2"])
        commands[-1] += ["--device=cpu", "-n", weights, *quiet]
    code = f"from espan.cli import main\nprint([main(each) for each in {commands}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{[0] * len(SOFTWARE)}\n", done.stderr
    lines = done.stderr.splitlines()
    begins = [] if quiet else [f"{tmp_path}/{codec}-{f}.mkv 64 x 48, " for codec, f in SOFTWARE]
    assert len(lines) == len(begins), done.stderr
    assert all(line.startswith(begin) for line, begin in zip(lines, begins, strict=True))


PQ = clips.Colour(9, 16, 9, clips.LIMITED)


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="libx265 is not in this PyAV")
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("format", ["yuv420p10le", "yuv420p"])
def test_ten_bits_and_hdr_become_hevc(tmp_path, ending, format, caplog):
    clip = clips.make(tmp_path / "in.mkv", 3, codec="ffv1", format=format, colour=PQ)
    out = espan.upscale_video(clip, tmp_path / f"out.{ending}", 2, device="cpu", model=NET)
    with av.open(str(out)) as result:
        context = result.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.color_trc) == ("hevc", format, 16)
        if ending in ("mp4", "mov"):
            assert context.codec_tag == "hvc1"
    assert len(clips.frames(out)) == 3 and not caplog.records


def test_eight_bits_become_h264(tmp_path):
    clip = clips.make(tmp_path / "in.mkv", 3)
    out = espan.upscale_video(clip, tmp_path / "out.mp4", 2, device="cpu", model=NET)
    with av.open(str(out)) as result:
        assert result.streams.video[0].codec_context.name == "h264"


@pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="libsvtav1 is not in this PyAV")
def test_ten_bits_become_av1_without_hevc(tmp_path, monkeypatch, caplog):
    clip = clips.make(tmp_path / "in.mkv", 3, codec="ffv1", format="yuv420p10le", colour=PQ)
    web = espan.upscale_video(clip, tmp_path / "out.webm", 2, device="cpu", model=NET)
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx265"})
    plain = espan.upscale_video(clip, tmp_path / "out.mkv", 2, device="cpu", model=NET)
    for out in (web, plain):
        with av.open(str(out)) as result:
            context = result.streams.video[0].codec_context
            assert ("av1" in context.name, context.pix_fmt) == (True, "yuv420p10le")
    assert not caplog.records


def test_lost_bits_are_one_warning(tmp_path, monkeypatch, caplog):
    clip = clips.make(tmp_path / "in.mkv", 3, codec="ffv1", format="yuv420p10le")

    def warnings(name: str, **options) -> list[str]:
        caplog.clear()
        espan.upscale_video(clip, tmp_path / name, 1, device="cpu", model=NET, **options)
        return [record.getMessage() for record in caplog.records]

    lost = "in.mkv: reduced from 10 to 8 bits per channel, the most that mpeg4 supports; --codec {}"
    if "libx265" in av.codecs_available:
        (line,) = warnings("out.mkv", codec="mpeg4")
        assert lost.format("libx265") in line
        deep = clips.make(tmp_path / "deep.mkv", 3, codec="ffv1", format="yuv420p16le")
        espan.upscale_video(deep, tmp_path / "a.mkv", 1, device="cpu", model=NET)
        reduced = "from 16 to 12 bits per channel, the most that libx265 supports; --codec ffv1"
        assert reduced in caplog.text
    left = av.codecs_available - {"libx265", "libsvtav1"}
    monkeypatch.setattr(av, "codecs_available", left)
    (line,) = warnings("out.mkv", codec="mpeg4")
    assert lost.format("ffv1") in line
    assert warnings("out.mp4") == []  # H.264 of 10 bits
    assert warnings("out.mkv", codec="libx264", pix_fmt="yuv420p") == []  # the user chose it
