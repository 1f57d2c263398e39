"""Hardware decoders and encoders: used on request, refused with the reason if they are missing."""

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
    with pytest.raises(
        OptionError, match=r"hwaccel: expected one that this PyAV has \(.*\), got 'abacus'"
    ):
        upscale_video("a.mp4", tmp_path / "b.mp4", hwaccel="abacus", model=random_net())


@pytest.mark.parametrize("device", hwdevices_available())
def test_hardware_decodes_or_gives_the_reason(device, tmp_path):
    path = clip(tmp_path / "a.mp4")
    try:
        facts = source.probe(path, Options(hwaccel=device).hwaccel)
    except InputError as error:
        assert str(error).startswith(f"{path}: hwaccel: {device} cannot decode it: ")
        assert len(str(error)) > len(f"{path}: hwaccel: {device} cannot decode it: ")
    else:  # with such hardware, frames equal the CPU's
        assert facts.hwaccel == device and facts.format == source.probe(path).format
        both = zip(frames.read(facts), frames.read(source.probe(path)), strict=True)
        assert all(abs(a.image.astype(int) - b.image).max() <= 2 for a, b in both)


def test_the_error_for_a_damaged_file_does_not_name_the_hardware(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    for device in hwdevices_available():
        with pytest.raises(InputError) as caught:
            source.probe(tmp_path / "a.mp4", device)
        assert "hwaccel" not in str(caught.value)


def test_the_command_line(tmp_path, capsys):
    path = clip(tmp_path / "a.mp4")
    out = str(tmp_path / "b.mp4")
    assert main(["upscale", str(path), "-o", out, "--hwaccel", "abacus", "--device", "cpu"]) == 2
    assert "got 'abacus'" in capsys.readouterr().err
    assert main(["upscale", str(tmp_path / "c.png"), "--hwaccel", "cuda", "--device", "cpu"]) == 2
    assert "hwaccel: applies to videos" in capsys.readouterr().err


@pytest.mark.skipif("h264_nvenc" not in av.codecs_available, reason="PyAV has no NVENC")
def test_an_encoder_without_its_hardware_is_refused(tmp_path):
    path, out = clip(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    try:
        upscale_video(path, out, codec="h264_nvenc", model=random_net(), device="cpu")
    except InputError as error:
        assert "h264_nvenc" in str(error)
    except Exception as error:
        assert "h264_nvenc refuses" in str(error) and not out.exists()
