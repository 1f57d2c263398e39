"""The settings of encoders: each does what it says."""

import pytest

import espan
from espan.errors import OutputError
from tests.makers import nearest_net

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.video.encoding import _QUALITY  # noqa: E402
from tests import clips  # noqa: E402

NET = nearest_net()


@pytest.mark.parametrize("codec", [each for each in _QUALITY if each in av.codecs_available])
def test_a_larger_crf_makes_a_smaller_file(codec, tmp_path):
    clip = clips.make(tmp_path / "in.mp4", 3, (48, 40))
    sizes = []
    for crf in (3, 14, 30):
        out = tmp_path / f"{crf}.mkv"
        try:
            espan.upscale_video(clip, out, model=NET, codec=codec, crf=crf)
        except OutputError:
            if "nvenc" in codec:
                pytest.skip("no encoder in hardware")
            raise
        sizes.append(out.stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]
