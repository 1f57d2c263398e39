"""Damaged packets and sizes over the limits: which frames come out, and which errors."""

from contextlib import nullcontext
from fractions import Fraction
from types import SimpleNamespace

import pytest

import espan
from espan import Limits
from espan.cli import main
from espan.errors import LimitError
from tests.support.makers import nearest_net

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.video import frames, streams  # noqa: E402
from tests.support import clips  # noqa: E402

NET = nearest_net()


class Packet:
    """Decodes to one frame, to none, or to an error."""

    dts, duration, size = None, 1, 0

    def __init__(self, pts: int, kind: str = "frame"):
        self.pts, self.kind = pts, kind

    def decode(self) -> list:
        if self.kind == "damaged":
            raise av.error.InvalidDataError(1, "damaged")
        return [SimpleNamespace(pts=self.pts, duration=1)] if self.kind == "frame" else []


def times(monkeypatch, *kinds: str) -> list[int]:
    """Times of the frames decoded from packets of these kinds, one packet per tick."""
    packets = [Packet(pts, kind) for pts, kind in enumerate(kinds)]
    stream = SimpleNamespace(codec_context=SimpleNamespace(options={}))
    container = SimpleNamespace(streams=[stream], demux=lambda _: iter(packets))
    monkeypatch.setattr(frames, "opened", lambda *_: nullcontext(container))
    clip = SimpleNamespace(
        hwaccel=None, rate=Fraction(1), time_base=Fraction(1), path="clip", index=0, seek_to=None
    )
    return [pts for pts, *_ in frames._in_order(clip, strict=False)]


def test_only_frames_lost_to_damage_are_repeated(monkeypatch):
    hidden = ["frame", "hidden", "frame"]
    assert times(monkeypatch, *hidden) == [0, 2]
    assert times(monkeypatch, "frame", "damaged", "hidden", "frame") == [0, 1, 2, 3]
    assert times(monkeypatch, "frame", "damaged", *hidden, *hidden) == [0, 1, 2, 4, 5, 7]
    assert times(monkeypatch, "frame", "damaged", "frame", "hidden") == [0, 1, 2]


def test_a_cover_without_an_image(monkeypatch):
    empty = SimpleNamespace(streams=[None], demux=lambda _: iter([Packet(0)]))
    monkeypatch.setattr(streams, "opened", lambda _: nullcontext(empty))
    with pytest.raises(ValueError, match="without an image"):
        streams._cover(SimpleNamespace(path="clip"), 0)


def test_limits_apply_to_frames(tmp_path, capsys):
    clip, out = clips.make(tmp_path / "in.mp4", 2), tmp_path / "out.mp4"
    with pytest.raises(LimitError, match=r"in\.mp4: 32 x 24 pixels are over the limit of 767"):
        espan.upscale_video(clip, out, device="cpu", model=NET, limits=Limits(max_input=767))
    with pytest.raises(LimitError, match="over the output limit of 9"):
        next(espan.video_frames(clip, device="cpu", model=NET, limits=Limits(max_output=9)))
    assert main(["upscale", "--device=cpu", str(clip), "--max-pixels", "700"]) == 1
    assert "in.mp4: 32 x 24 pixels are over the limit of 700" in capsys.readouterr().err
    espan.upscale_video(
        clip, out, device="cpu", model=NET, limits=Limits(max_input=768, max_output=768 * 16)
    )
