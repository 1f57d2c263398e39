"""An interrupted video continues after its last complete segment, with the same result."""

import os
import signal
from pathlib import Path

import pytest

import espan
from espan import Upscaler
from espan.errors import OutputError
from tests.support.makers import python, random_net

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.cli import main  # noqa: E402
from espan.video import convert, segments  # noqa: E402
from tests.support import clips  # noqa: E402

NET = random_net()
HOW = {"model": NET, "dtype": "fp32"}


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(convert, "SEGMENT", 5)


@pytest.fixture
def clip(tmp_path):
    return clips.make(tmp_path / "in.mkv", 23, sound=True)


def left_over(folder) -> list[str]:
    return sorted(p.name for p in folder.glob(".espan-*/*"))


def stopped(clip, out, at: int, error=KeyboardInterrupt, **options) -> None:
    """A run that is interrupted after frame `at`."""

    def progress(done: int, total: int) -> None:
        if done == at:
            raise error

    with pytest.raises(error):
        espan.upscale_video(clip, out, device="cpu", **{**HOW, "progress": progress, **options})


def coded(path) -> list[tuple]:
    return clips.packets(path, "video") + clips.packets(path, "audio")


def counted(clip, out, **options) -> list[int]:
    calls = []
    espan.upscale_video(
        clip, out, device="cpu", **{**HOW, "progress": lambda d, n: calls.append(d), **options}
    )
    return calls


@pytest.mark.parametrize("at", [1, 5, 6, 13, 23])
def test_a_run_continues_after_the_last_complete_segment(clip, tmp_path, at):
    unbroken = espan.upscale_video(clip, tmp_path / "unbroken.mkv", device="cpu", **HOW)
    out = tmp_path / "out.mkv"
    stopped(clip, out, at)
    assert not out.exists()
    finished = 5 * ((at - 1) // 5)
    assert counted(clip, out) == [*range(finished + 1, 24)]
    assert coded(out) == coded(unbroken)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out.mkv", "unbroken.mkv"]


def test_segments_change_only_the_keyframes(clip, tmp_path, monkeypatch):
    parts = espan.upscale_video(clip, tmp_path / "parts.mkv", device="cpu", codec="ffv1", **HOW)
    monkeypatch.setattr(convert, "SEGMENT", 1000)
    single = espan.upscale_video(clip, tmp_path / "single.mkv", device="cpu", codec="ffv1", **HOW)
    assert clips.times(parts) == clips.times(single) == clips.times(clip)
    for a, b in zip(clips.frames(parts), clips.frames(single), strict=True):
        assert bytes(a.planes[0]) == bytes(b.planes[0])


def test_killed_in_the_middle(clip, tmp_path):
    out = tmp_path / "out.mkv"
    code = f"""
import os, signal, espan
from espan.video import convert
from tests.support.makers import random_net
convert.SEGMENT = 5
def progress(done, total):
    if done == 13:
        os.kill(os.getpid(), signal.SIGKILL)
espan.upscale_video({str(clip)!r}, {str(out)!r}, device="cpu",
                    model=random_net(), dtype="fp32", codec="ffv1", progress=progress)
"""
    assert python(code).returncode == -signal.SIGKILL
    assert not out.exists() and "000001.segment" in left_over(tmp_path)
    assert counted(clip, out, codec="ffv1")[0] == 11  # ffv1 writes each frame immediately
    unbroken = espan.upscale_video(
        clip, tmp_path / "unbroken.mkv", device="cpu", codec="ffv1", **HOW
    )
    assert coded(out) == coded(unbroken)
    assert not left_over(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        {"model": random_net(seed=1)},
        {"scale": 3},
        {"crf": 30},
        {"codec": "ffv1"},
        {"pix_fmt": "yuv444p"},
        {"on_error": "repeat"},
        {"tile": 8},
    ],
    ids=str,
)
def test_other_settings_start_over(clip, tmp_path, other):
    out = tmp_path / "out.mkv"
    stopped(clip, out, 13)
    assert counted(clip, out, **other)[0] == 1
    assert not left_over(tmp_path)


def test_another_input_starts_over(clip, tmp_path):
    out = tmp_path / "out.mkv"
    stopped(clip, out, 13)
    clips.make(clip, 23, sound=True)
    os.utime(clip, (1, 1))
    assert counted(clip, out)[0] == 1


def test_stopped_while_the_final_file_is_written(clip, tmp_path, monkeypatch):
    from espan.video import mux

    packet, made = mux.Packet, []

    def stops(data):
        made.append(data)
        if len(made) == 20:
            raise KeyboardInterrupt
        return packet(data)

    out = tmp_path / "out.mkv"
    out.write_bytes(b"mine")
    with monkeypatch.context() as patch:
        patch.setattr(mux, "Packet", stops)
        stopped(clip, out, 0)
    assert out.read_bytes() == b"mine" and not list(tmp_path.glob("*.part"))
    assert counted(clip, out) == []
    assert len(clips.frames(out)) == 23


def test_an_interrupt_of_the_command(clip, tmp_path):
    out = tmp_path / "out.mkv"
    code = f"""
import os, signal, sys
from espan.cli import main
from espan.video import convert
convert.SEGMENT = 5
with_progress = convert.with_progress
def interrupted(images, *rest):
    for number, image in enumerate(with_progress(images, *rest)):
        if number == 12:
            os.kill(os.getpid(), signal.SIGINT)
        yield image
convert.with_progress = interrupted
sys.exit(main(["upscale", "--device=cpu", {str(clip)!r}, "-o", {str(out)!r}, "-s", "2"]))
"""
    result = python(code)
    assert result.returncode == 130, result.stderr
    assert "the same command continues from there" in result.stderr
    assert not out.exists() and "000001.segment" in left_over(tmp_path)
    assert main(["upscale", "--device=cpu", str(clip), "-o", str(out), "-s", "2"]) == 0
    assert len(clips.frames(out)) == 23 and not left_over(tmp_path)


@pytest.mark.skipif(segments.fcntl is None, reason="there are no locks")
def test_two_runs_never_write_the_same_output(clip, tmp_path):
    out = tmp_path / "out.mkv"
    stopped(clip, out, 13)
    kept = left_over(tmp_path)
    with segments.exclusive(out):
        with pytest.raises(OutputError, match=r"out\.mkv: another run is writing it"):
            espan.upscale_video(clip, out, device="cpu", **HOW)
        with pytest.raises(OutputError, match="another run"):
            espan.upscale_video(clip, out, device="cpu", crf=30, **HOW)
        assert left_over(tmp_path) == kept
    assert counted(clip, out)[0] == 11
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_a_system_error_in_segments_names_the_output(clip, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    out = tmp_path / "out.mkv"
    for owner, name in [(Path, "replace"), (segments.shutil, "rmtree")]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(OutputError, match=r"out\.mkv: could not be written: No space"):
                espan.upscale_video(clip, out, device="cpu", **HOW)


@pytest.mark.skipif(segments.fcntl is None, reason="there are no locks")
def test_leftovers_of_a_killed_run_are_removed(clip, tmp_path):
    part = tmp_path / ".espan-0.part"
    part.write_bytes(b"half of it")
    espan.upscale_video(clip, tmp_path / "out.mkv", device="cpu", **HOW)
    assert not part.exists()


def test_the_identity_of_a_network_depends_on_its_weights():
    def identity(net, **options):
        return convert.identity_of(Upscaler(net, device="cpu", **options))

    same, other = random_net(), random_net(seed=1)
    assert identity(same) == identity(NET)
    assert identity(other) != identity(NET)
    assert identity(random_net().bfloat16()) != identity(NET)
    assert identity(NET, dtype="fp32") != identity(NET, dtype="bf16")
