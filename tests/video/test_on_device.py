"""Frames through `OnDevice` on the make-believe device: bytes over the bus, overlap, errors."""

import logging
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import espan
from espan import DeviceLostError, InputError, Size
from espan.system.pinned import pageable
from tests.support.make_believe_device import in_this_thread
from tests.support.makers import nearest_net
from tests.support.transfers import DeviceSlot, Transfers, on_device

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.video import convert, frames, source  # noqa: E402
from espan.video import on_device as colours  # noqa: E402
from espan.video.colour import CENTRE  # noqa: E402
from espan.video.options import Options  # noqa: E402
from espan.video.packed import LAYOUTS, Packed  # noqa: E402
from espan.video.turn import Turn  # noqa: E402
from tests.support import clips  # noqa: E402

NET = nearest_net()
EAGER = {"dtype": "fp32", "backend": "eager"}
FORMATS = sorted({*LAYOUTS} - {"yuvj420p"})
W, H = 32, 24


def clip_of(format: str, width: int = W, height: int = H) -> SimpleNamespace:
    upright = Turn(0, False)
    return SimpleNamespace(
        format=format,
        width=width,
        height=height,
        colour=clips.TAGGED,
        siting=CENTRE,
        turn=upright,
        path="clip",
    )


def encoding_of(format: str) -> SimpleNamespace:
    return SimpleNamespace(format=format, width=4 * W, height=4 * H, colour=clips.TAGGED)


def frame(format: str, empty=pageable, number: int = 0) -> Packed:
    image = clips.image(number, H, W, LAYOUTS[format].bits > 8)
    return Packed.of(clips.Pixels(clips.TAGGED).frame(image, av.VideoFormat(format)), empty)


class Lane(DeviceSlot):
    """A slot whose device exists in the threads that use it."""

    def current(self):
        return in_this_thread()


@pytest.mark.parametrize("format", FORMATS)
def test_planes_cross_the_bus_and_nothing_else(format):
    bytes_each = 1 if LAYOUTS[format].bits == 8 else 2
    small, large = (count * bytes_each for count in (W * H, 16 * W * H))
    with on_device(NET, **EAGER) as (up, _, pages):
        lanes = []

        def lane(device) -> DeviceSlot:
            lanes.append(DeviceSlot(device))
            return lanes[-1]

        there = colours.OnDevice(up, clip_of(format), encoding_of(format), lane)
        image = frame(format, there.empty)
        assert pages.has(image.values)
        for _ in range(3):  # without a graph, captured, replayed
            for each in lanes:
                each.log.clear()
            with Transfers() as seen:
                got = there(image, 4)
            assert [event for each in lanes for event in each.log] == ["mark", "wait"]
            assert seen.moved == {
                "host to device": [small * 3 // 2],
                # The network's input and result, and the planes of the result.
                "device to device": [3 * small, 3 * large, large, large // 2],
                "device to host": [large * 3 // 2],
            }
            assert seen.waits == 0 and pages.has(got.values)
        assert got.format == format and (got.width, got.height) == (4 * W, 4 * H)


class Passes(TorchDispatchMode):
    """Names of the operators that read or write pixels."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        if not func.is_view and name != "empty":
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("format", "passes"), [("nv12", 10), ("p010le", 12)])
def test_passes_of_a_conversion(format, passes):
    made = colours.Colours(clip_of(format), encoding_of(format), torch.device("cpu"))
    packed, rgb = frame(format), torch.zeros(3, 4 * H, 4 * W, dtype=torch.uint8)
    with Passes() as seen:
        made.rgb(packed)
    assert len(seen.names) == 10, seen.names
    with Passes() as seen:
        made.packed(rgb)
    assert len(seen.names) == passes, seen.names


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"scale": Size(width=4 * W)}, True),
        ({"device": "cpu"}, False),
        ({"device": "mps"}, False),
        ({"scale": 2}, False),  # filtered down on the host
        ({"scale": 16}, False),
        ({"format": "yuv422p"}, False),
        ({"format": "gray"}, False),
        ({"out": "yuv444p"}, False),
        ({"out": "rgb24"}, False),
        ({"width": W - 1}, False),
        ({"height": H + 1}, False),
    ],
    ids=str,
)
def test_where_colours_are_converted_on_the_device(change, right):
    upscaler = SimpleNamespace(device=torch.device(change.pop("device", "cuda")), scale=4)
    scale, out = change.pop("scale", 4), encoding_of(change.pop("out", "p010le"))
    clip = clip_of(**{"format": "yuv420p"} | change)
    assert colours.suits(upscaler, scale, clip, out) == right


def test_other_frames_of_a_clip_stay_rgb(tmp_path):
    """Other sizes and formats than the first frame's are converted as ever."""
    usual = source.probe(clips.make(tmp_path / "a.mkv", 2, codec="ffv1"))
    smaller = replace(usual, width=W - 2)
    path = clips.make(tmp_path / "b.mkv", 2, codec="ffv1", format="yuv422p")
    for clip, kind in ((usual, Packed), (smaller, np.ndarray), (source.probe(path), np.ndarray)):
        assert {type(each.image) for each in frames.read(clip, empty=pageable)} == {kind}


@pytest.fixture
def through(monkeypatch):
    """through(clip, output, **options): a video converted on the make-believe device."""

    suits, kind = colours.suits, colours.OnDevice
    gpu = SimpleNamespace(device=torch.device("cuda"), scale=4)

    def convert_there(path, output, lane=Lane, progress=None, **options):
        with monkeypatch.context() as patch:
            patch.setattr(colours, "suits", lambda _, *rest: suits(gpu, *rest))
            patch.setattr(colours, "OnDevice", partial(kind, lane=lane))
            with on_device(NET, **EAGER) as (up, slots, _):
                for slot in slots:
                    slot.current = in_this_thread
                return convert.convert(path, output, up, 4, Options(**options), progress)

    return convert_there


@pytest.mark.parametrize(
    ("format", "codec", "out", "turned"),
    [
        ("yuv420p", "libx264", None, 0),
        ("yuv420p", "libx264", None, 90),
        ("yuv420p", "ffv1", "yuv420p10le", 0),
        ("yuv420p10le", "ffv1", None, 0),
        ("yuv420p10le", "ffv1", "yuv420p", 0),
    ],
)
def test_a_video_is_the_one_of_the_cpu(tmp_path, through, format, codec, out, turned):
    path = clips.make(tmp_path / "a.mp4", 12, codec=codec, format=format, turned=turned)
    options = {"codec": "ffv1", "pix_fmt": out}
    cpu = espan.upscale_video(
        path, tmp_path / "cpu.mkv", device="cpu", model=NET, dtype="fp32", **options
    )
    calls, lanes = [], []

    def lane(device) -> Lane:
        lanes.append(Lane(device))
        return lanes[-1]

    there = tmp_path / "there.mkv"
    report = through(path, there, lane, lambda *each: calls.append(each), **options)
    assert calls == [(n, 12) for n in range(1, 13)] and report.frames == 12
    assert sum(each.log.count("mark") for each in lanes) == 12
    both = [clips.frames(each) for each in (cpu, there)]
    for one, other in zip(*both, strict=True):
        assert other.format.name == one.format.name == (out or format)
        tags = [(f.colorspace, f.color_range, f.pts, f.width, f.height) for f in (one, other)]
        assert tags[0] == tags[1]
        planes = [Packed.of(f, pageable).planes() for f in (one, other)]
        for a, b in zip(*planes, strict=True):
            deep = one.format.name.endswith("10le")
            assert (a.int() - b.int()).abs().max() <= (5 if deep else 2)
            assert (a.float() - b.float()).mean().abs() < 0.3


def test_two_frames_are_under_way(tmp_path):
    """While the host waits for one frame, the next one is on the device."""
    path = clips.make(tmp_path / "a.mkv", 8, codec="ffv1")
    together = threading.Barrier(2)

    class Meeting(Lane):
        def mark(self):
            return lambda: together.wait(60)

    clip = source.probe(path)
    with on_device(NET, **EAGER) as (up, _, _):
        there = colours.OnDevice(up, clip, encoding_of("yuv420p"), Meeting)
        results = convert._upscaled(clip, frames.read(clip, empty=there.empty), there, 4)
        assert [each.pts for each, _ in results] == list(range(0, 320, 40))


class Failing(Lane):
    """The copy back of the third frame fails."""

    def __init__(self, device, error, count):
        super().__init__(device)
        self.error, self.count = error, count

    def mark(self):
        self.count.append(1)
        if len(self.count) == 3:
            raise self.error
        return super().mark()


def failing(error: Exception):
    return partial(Failing, error=error, count=[])


def test_without_memory_a_frame_is_converted_on_the_cpu(tmp_path, through, caplog):
    path = clips.make(tmp_path / "a.mkv", 6, codec="ffv1")
    plain, short = tmp_path / "plain.mkv", tmp_path / "short.mkv"
    through(path, plain, codec="ffv1")
    through(path, short, codec="ffv1", lane=failing(torch.OutOfMemoryError("CUDA out of memory")))
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1 and "out of memory for a frame" in warnings[0]
    for one, other in zip(clips.frames(plain), clips.frames(short), strict=True):
        assert torch.equal(Packed.of(one, pageable).values, Packed.of(other, pageable).values)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA error: an illegal memory access"), DeviceLostError),
        (InputError("a tile"), InputError),
        (RuntimeError("a bug"), RuntimeError),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_errors_end_the_video_and_name_it(tmp_path, through, error, kind):
    path = clips.make(tmp_path / "a.mkv", 6, codec="ffv1")
    before = threading.active_count()
    with pytest.raises(kind) as caught:
        through(path, tmp_path / "b.mkv", lane=failing(error))
    assert kind is RuntimeError or str(caught.value).startswith(f"{path}: ")
    assert not (tmp_path / "b.mkv").exists() and threading.active_count() <= before


@pytest.mark.gpu
@pytest.mark.parametrize("format", ["yuv420p", "yuv420p10le"])
def test_a_gpu_gives_the_video_of_the_cpu(tmp_path, format):
    path = clips.make(tmp_path / "a.mkv", 12, codec="ffv1", format=format)
    results = []
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.mkv"
        espan.upscale_video(path, out, device=device, model=NET, dtype="fp32", codec="ffv1")
        results.append([Packed.of(each, pageable).values for each in clips.frames(out)])
    for one, other in zip(*results, strict=True):
        assert (one.int() - other.int()).abs().max() <= (2 if format == "yuv420p" else 5)
