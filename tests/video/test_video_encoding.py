"""The settings of encoders: each does what it says."""

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
def test_threads_are_scheduled_as_ever(codec, tmp_path):
    """Only root can be given real time's priority, which SVT-AV1 takes without being asked."""
    usual, seen = os.sched_getscheduler(0), set()

    def progress(done, total):
        for task in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended meanwhile
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
def test_what_a_library_takes_is_given_back():
    usual = os.sched_getscheduler(0)
    ended, policies = threading.Event(), []

    def work():
        ended.wait(60)
        policies.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    with scheduling.kept():
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pytest.skip("needs the right to real time")
        thread.start()
    ended.set()
    thread.join()
    assert [os.sched_getscheduler(0), *policies] == [usual] * 2


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "libvpx-vp9"])
def test_encoder_libraries_keep_quiet(tmp_path, weights, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec} here")
    clip = clips.make(tmp_path / "in.mp4", 3)
    command = [sys.executable, "-m", "espan.cli", "upscale", str(clip), "--codec", codec]
    command += ["-o", str(tmp_path / "out.mkv"), "-s", "2", "--device=cpu", "-n", weights, "-q"]
    done = subprocess.run(command, capture_output=True, text=True)  # libraries write to the stream
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
