"""Hardware that decodes and encodes: used when asked for, refused with the reason where absent."""

import av
import pytest
from av.codec.hwaccel import hwdevices_available

from espan import InputError, upscale_video
from espan.cli import main
from espan.video import frames, source
from espan.video.options import OptionError, Options
from tests.support.clips import make as clip
from tests.support.makers import random_net


def test_hardware_that_pyav_lacks_is_named(tmp_path):
    with pytest.raises(OptionError, match="hwaccel: this PyAV has no 'abacus'; it has "):
        upscale_video("a.mp4", tmp_path / "b.mp4", hwaccel="abacus", model=random_net())


@pytest.mark.parametrize("device", hwdevices_available())
def test_hardware_decodes_or_says_why_not(device, tmp_path):
    path = clip(tmp_path / "a.mp4")
    try:
        facts = source.look(path, Options(hwaccel=device).hwaccel)
    except InputError as error:
        assert str(error).startswith(f"{path}: hwaccel: {device} cannot decode it here: ")
        assert len(str(error)) > len(f"{path}: hwaccel: {device} cannot decode it here: ")
    else:  # there is such hardware: its frames are those of the CPU
        assert facts.hwaccel == device and facts.format == source.look(path).format
        both = zip(frames.read(facts), frames.read(source.look(path)), strict=True)
        assert all(abs(a.picture.astype(int) - b.picture).max() <= 2 for a, b in both)


def test_a_damaged_file_is_no_fault_of_the_hardware(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    for device in hwdevices_available():
        with pytest.raises(InputError) as caught:
            source.look(tmp_path / "a.mp4", device)
        assert "hwaccel" not in str(caught.value)


def test_the_command_has_it(tmp_path, capsys):
    path = clip(tmp_path / "a.mp4")
    out = str(tmp_path / "b.mp4")
    assert main(["upscale", str(path), "-o", out, "--hwaccel", "abacus", "--device", "cpu"]) == 2
    assert "hwaccel: this PyAV has no 'abacus'" in capsys.readouterr().err
    assert main(["upscale", str(tmp_path / "c.png"), "--hwaccel", "cuda", "--device", "cpu"]) == 2
    assert "hwaccel: is for videos" in capsys.readouterr().err


@pytest.mark.skipif("h264_nvenc" not in av.codecs_available, reason="PyAV has no NVENC")
def test_an_encoder_whose_hardware_is_absent_is_refused(tmp_path):
    path, out = clip(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    try:
        upscale_video(path, out, codec="h264_nvenc", model=random_net(), device="cpu")
    except InputError as error:
        assert "h264_nvenc" in str(error)
    except Exception as error:
        assert "h264_nvenc refuses" in str(error) and not out.exists()
