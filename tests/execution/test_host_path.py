"""Counts the copies, bytes, allocations and waits of a call around the network."""

import numpy as np
import pytest
import torch
from PIL import Image

from espan import DeviceError, Upscaler
from espan.execution import schedule, streaming
from espan.system import memory
from tests.support.makers import noise, random_net
from tests.support.transfers import Transfers, on_device

NET = random_net()
H, W = 21, 30
EAGER = {"dtype": "fp32", "backend": "eager"}
KINDS = {
    "RGB": noise(H, W, 3),
    "grey": noise(H, W),
    "16 bits": noise(H, W, 3, dtype=np.uint16),
    "floats": noise(H, W, 3, dtype=np.float32),
    "CHW": torch.from_numpy(noise(3, H, W)),
    "batch": torch.from_numpy(noise(4, 3, H, W)),
    "PIL": Image.fromarray(noise(H, W, 3)),
    "PIL L": Image.fromarray(noise(H, W)),
}


def alone(image, **options):
    return Upscaler(NET, device="cpu", **(EAGER | options))(image)


def same(got, want) -> bool:
    return type(got) is type(want) and np.array_equal(np.asarray(got), np.asarray(want))


def size(image) -> int:
    return np.asarray(image).nbytes


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_go_there_and_back_once_and_are_waited_for_once(kind):
    image = KINDS[kind]
    want = alone(image)
    with on_device(NET, **EAGER) as (up, slots, pages):
        for _ in range(3):  # without a graph, captured, replayed
            for slot in slots:
                slot.log.clear()
            with Transfers() as seen:
                got = up(image)
            back = size(want) * 4 // 3 if kind == "PIL" else size(want)
            assert same(got, want)
            # PIL stores four bytes per pixel; the device writes the fourth.
            assert seen.moved.pop("device to device", []) == [size(want)] * (kind == "PIL")
            assert seen.moved == {
                "host to host": [size(image)],  # into pinned memory
                "host to device": [size(image)],
                "device to host": [back],
            }
            assert seen.waits == 0
            assert [event for slot in slots for event in slot.log].count("wait") == 1
        assert pages.locked


@pytest.mark.parametrize("kind", ["LA", "RGBA"])
def test_alpha_lies_beside_the_colours(kind):
    image = Image.merge(kind, [Image.fromarray(noise(H, W, seed=n)) for n in range(len(kind))])
    for each in (image, np.asarray(image), torch.from_numpy(np.asarray(image).transpose(2, 0, 1))):
        want = alone(each)
        with on_device(NET, **EAGER) as (up, _, _), Transfers() as seen:
            got = up(each)
        assert same(got, want)
        assert seen.moved["device to host"] == [size(want)]


@pytest.mark.parametrize("layout", ["CHW", "HWC", "batch"])
def test_tensors_of_the_device_stay_there(layout):
    image = torch.from_numpy(noise(2, 3, H, W) if layout == "batch" else noise(3, H, W))
    want = alone(image)
    with on_device(NET, **EAGER) as (up, slots, pages):
        there = image.to(up.device)
        if layout == "HWC":
            there = image.permute(1, 2, 0).contiguous().to(up.device).permute(2, 0, 1)
        with Transfers() as seen:
            got = up(there)
        # The trusted flag is read on the host, after the only wait.
        assert seen.moved == {"device to device": [size(image), size(want)]}
        assert seen.waits == 0 and pages.locked == 0
        events = [event for slot in slots for event in slot.log]
        # After the caller's work so far, and done before the caller's next work.
        assert events == ["follow", "mark", "wait"]
        assert torch.equal(got.cpu(), want)


def test_strips_need_no_copy_and_squares_one():
    image = noise(400, 64, 3)
    want = alone(image, tile=None)
    for tile, copied in (("auto", 0), (40, 1)):
        with on_device(NET, tile=tile, **EAGER) as (up, _, _):
            up._runner.window = 64 * 130
            with Transfers() as seen:
                got = up(image)
        assert np.abs(got.astype(int) - want).max() <= 1
        tiles = len(seen.moved["device to host"])
        assert tiles > 2 and len(seen.moved["host to host"]) == tiles * (1 + copied)


def test_strips_for_a_file_are_written_by_the_device(tmp_path):
    image = Image.fromarray(noise(500, 64, 3))
    want = np.asarray(alone(image, tile=None)).astype(int)
    with on_device(NET, **EAGER) as (up, _, pages):
        up._runner.window = 64 * 130
        with Transfers() as seen:
            streaming.stream_upscaled(tmp_path / "a.png", up, image, 4)
    with Image.open(tmp_path / "a.png") as read:
        assert np.abs(np.asarray(read) - want).max() <= 1
    tiles = len(seen.moved["device to host"])
    assert tiles > 2 and seen.moved["host to host"] == seen.moved["host to device"]
    # Three strips and one for the writer, each rounded up to a power of two.
    assert pages.locked <= 4 * (1 << (4 * 130 * 4 * 64 * 3).bit_length())


def test_host_work_of_a_call(monkeypatch):
    """Caches work: free memory is not queried again, and tiles of a size are planned once."""
    asked, listed = [], []
    available = memory.available
    monkeypatch.setattr(memory, "available", lambda: asked.append(1) or available())
    monkeypatch.setattr(memory, "FRESH", 3600.0)
    monkeypatch.setattr(memory, "_until", 0.0)
    cut = schedule.cut
    monkeypatch.setattr(schedule, "cut", lambda *args: listed.append(1) or cut(*args))
    schedule._all.cache_clear()
    with on_device(NET, **EAGER) as (up, _, _):
        for _ in range(10):
            up(KINDS["RGB"])
    up = Upscaler(NET, device="cpu", **EAGER)
    for _ in range(10):
        up(KINDS["RGB"])
    assert len(asked) == 1
    assert len(listed) == 2  # a GPU batches, a CPU does not


def test_free_memory_is_asked_for_again_where_it_matters(monkeypatch):
    answers = iter([1000, 500, 600, None])
    monkeypatch.setattr(memory, "available", lambda: next(answers))
    monkeypatch.setattr(memory, "_until", 0.0)
    assert memory.missing(60) is None
    assert memory.missing(58) is None  # cached
    assert memory.missing(501) == 500
    assert memory.missing(100) is None
    assert memory.missing(400) is None  # unknown


def test_a_capture_of_the_callers_is_refused_by_name(monkeypatch):
    up = Upscaler(NET, device="cpu", **EAGER)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for image in (KINDS["RGB"], KINDS["batch"], [KINDS["CHW"]]):
        with pytest.raises(DeviceError, match="a CUDA graph is being captured"):
            up(image)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert same(up(KINDS["RGB"]), alone(KINDS["RGB"]))
