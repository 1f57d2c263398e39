"""Executors: stream slots, graphs and staging memory do not change images, even after errors."""

import numpy as np
import pytest
import torch

from espan import DeviceError, DeviceLostError, NonFiniteError, Upscaler
from espan.backends.kernels import Plan
from espan.execution import executors
from espan.execution.cuda_graph import Graph
from espan.execution.runner import Runner
from tests.execution.test_tiling import OUT, overflowing_net
from tests.support.makers import noise, random_net
from tests.support.slots import FakeSlot, with_slots
from tests.support.threads import same_bits_in_threads

NET = random_net()
IMAGES = {
    "uint8": noise(45, 61, 3),
    "grey": noise(45, 61),
    "alpha": noise(45, 61, 4),
    "uint16": noise(45, 61, 3, dtype=np.uint16),
    "float": noise(45, 61, 3, dtype=np.float32),
    "tensor": torch.from_numpy(noise(3, 45, 61)),
    "batch": torch.from_numpy(noise(5, 3, 12, 17)),
}

EAGER = {"dtype": "fp32", "backend": "eager"}


def planned(net=NET, **options) -> Upscaler:
    """An upscaler whose backends are plans, as on a GPU, with reference ops."""
    up = Upscaler(net, device="cpu", **(EAGER | options))
    up._runner.backends = {
        dtype: Plan(eager.net, "eager") for dtype, eager in up._runner.backends.items()
    }
    return up


@pytest.mark.parametrize("backend", ["plan", "network"])
@pytest.mark.parametrize("name", IMAGES)
def test_stream_slots_give_the_image(name, backend):
    up = planned(tile=26) if backend == "plan" else Upscaler(NET, device="cpu", tile=26, **EAGER)
    expected = up(IMAGES[name])
    slots = with_slots(up)
    for _ in range(3):  # without a graph, captured, replayed
        got = up(IMAGES[name])
        assert type(got) is type(expected) and got.dtype == expected.dtype
        # Images of a batch run together, which changes the order of sums.
        error = np.abs(np.asarray(got, np.float64) - np.asarray(expected, np.float64)).max()
        assert error <= (1 if name == "batch" else 0)
    # Two slots for the four tiles, one for the batch, whose images run together.
    logs = [slot.log for slot in slots if slot.log]
    assert len(logs) == (1 if name == "batch" else 2)
    for log in logs:
        assert log.count("capture") == 1 and log.count("replay") == log.count("mark") - 1


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_tiles_of_8_bits_are_those_of_the_whole_image(dtype):
    up, image = planned(tile=26, dtype=dtype), IMAGES["uint8"]
    whole = Upscaler(NET, device="cpu", tile=None, dtype="fp32")(image)
    with_slots(up)
    allowed = {"fp16": 4, "bf16": 12, "fp32": 1}[dtype]
    assert np.abs(up(image).astype(int) - whole).max() <= allowed


def test_eight_threads_on_two_slots_get_the_bits_of_one():
    up = planned(tile=20)
    with_slots(up)
    images = [noise(30, 20 + n, 4 if n % 2 else 3, seed=n) for n in range(8)]
    same_bits_in_threads(up, images, 5)


def test_the_next_tile_is_under_way_before_one_is_waited_for():
    up = planned(tile=26)
    one, two = with_slots(up)
    one.log = two.log = events = []
    up(noise(20, 100, 3))  # 1 x 4 tiles
    order = [event for event in events if event in ("mark", "wait")]
    assert order == ["mark", "mark", *["wait", "mark"] * 2, "wait", "wait"]


def test_a_capture_that_fails_is_said_once_and_nothing_is_lost(caplog):
    up, image = planned(), IMAGES["uint8"]
    expected = up(image)
    (slot,) = with_slots(up, FakeSlot(RuntimeError("operation not permitted\nwhen capturing")))
    for _ in range(3):
        np.testing.assert_array_equal(up(image), expected)
    assert slot.log.count("capture") == 1
    said = [record.getMessage() for record in caplog.records]
    reason = "operation not permitted when capturing"
    assert said == [f"CUDA graph capture failed, launching kernels one by one: {reason}"]


def test_a_graph_is_captured_at_the_second_call():
    calls, slot = [], FakeSlot()
    x = torch.zeros(1)
    graph = Graph(lambda: (calls.append(x.item()) or x + 1,), slot.capture)
    for value in (1.0, 2.0, 3.0):
        x.fill_(value)
        assert graph()[0].item() == value + 1
    assert slot.log == ["capture", "replay", "replay"]


def test_shapes_are_kept_until_others_take_their_place(monkeypatch):
    monkeypatch.setattr(executors, "PROGRAMS", 2)
    up = planned()
    (slot,) = with_slots(up, FakeSlot())
    sizes = [(8, 8), (8, 9), (8, 8), (8, 10), (8, 8), (8, 9)]
    for size in sizes:
        up(noise(*size, 3))
    # Only the third and fifth call find their shape; the last call's shape was evicted.
    assert slot.log.count("capture") == 1 and slot.log.count("replay") == 2


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_an_image_that_cannot_be_trusted_is_computed_again(dtype, caplog):
    """An overflow in the tail's sum would give NaN, which uint8 cannot represent."""
    image = IMAGES["uint8"]
    up = planned(overflowing_net(2.0**16), dtype=dtype, tile=20)
    with_slots(up)
    result = up(image).astype(int)
    assert np.abs(result - Upscaler(NET, device="cpu", dtype="fp32")(image)).max() <= 12
    overflowed = dtype == "fp16"
    assert (up.redone > 0) == overflowed
    assert ("computed again in float32" in caplog.text) == overflowed


@torch.no_grad()
@pytest.mark.parametrize("layer", ["conv_1", "blocks.0.convs.1", "conv_cat", "upsampler"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nothing_that_is_not_a_number_becomes_a_pixel(layer, value):
    net = random_net()
    net.get_submodule(layer).bias[1] = value
    up = planned(net)
    with_slots(up)
    with pytest.raises(NonFiniteError, match="not finite"):
        up(noise(8, 8, 3))


@pytest.mark.parametrize("error", OUT)
def test_out_of_memory_on_a_slot(monkeypatch, error):
    image = noise(40, 90, 3)
    up = planned(tile=60)
    expected = up(image)
    with_slots(up)
    bind, failed = Runner._bind, []

    def failing(self, dtype, pixels):
        if pixels.shape[3] > 40:
            failed.append(tuple(pixels.shape[2:]))
            raise OUT[error]
        return bind(self, dtype, pixels)

    monkeypatch.setattr(Runner, "_bind", failing)
    np.testing.assert_array_equal(up(image), expected)
    # The other tile of this size is not tried.
    assert failed == [(40, 54)]


def test_memory_of_other_shapes_goes_first(monkeypatch):
    up = planned()
    with_slots(up, FakeSlot())
    expected = [up(noise(8, 8, 3)), up(noise(9, 9, 3))]
    bind, failed = Runner._bind, []

    def failing(self, dtype, pixels):
        if not failed:
            failed.append(True)
            raise OUT["torch"]
        return bind(self, dtype, pixels)

    monkeypatch.setattr(Runner, "_bind", failing)
    assert up(noise(10, 10, 3)).shape == (40, 40, 3)
    np.testing.assert_array_equal(up(noise(8, 8, 3)), expected[0])
    assert failed


def test_out_of_memory_halves_the_images_first(monkeypatch):
    up, batch = planned(), IMAGES["batch"]
    expected = up(batch)
    with_slots(up)
    bind, shapes = Runner._bind, []

    def failing(self, dtype, pixels):
        shapes.append(tuple(pixels.shape))
        if len(pixels) > 1:
            raise OUT["torch"]
        return bind(self, dtype, pixels)

    monkeypatch.setattr(Runner, "_bind", failing)
    assert torch.equal(up(batch), expected)
    assert [shape[0] for shape in shapes][:3] == [5, 2, 1]
    assert {shape[2:] for shape in shapes} == {(12, 17)}


def test_slots_are_freed_after_an_error(monkeypatch):
    up, image = planned(tile=26), IMAGES["uint8"]
    expected = up(image)
    with_slots(up)
    finish = executors.StreamTask.finish
    monkeypatch.setattr(executors.StreamTask, "finish", lambda job: 1 / 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            up(image)
    monkeypatch.setattr(executors.StreamTask, "finish", finish)
    np.testing.assert_array_equal(up(image), expected)


def test_a_tile_that_never_fits_is_an_error_and_frees_its_slot(monkeypatch):
    up = planned()
    with_slots(up)
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "_bind", lambda *args: (_ for _ in ()).throw(OUT["torch"]))
        for _ in range(3):
            with pytest.raises(DeviceError, match="out of memory even for a tile of"):
                up(IMAGES["uint8"])
    assert up(IMAGES["uint8"]).shape == (180, 244, 3)


class Lost:
    """A task on a failed GPU, where all calls fail."""

    dtype = torch.float32

    def finish(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def release(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered, again")


def test_a_gpu_lost_with_tiles_under_way_is_named(monkeypatch):
    up = planned(tile=26)
    (slots,) = {id(each): each for each in up._runner._executors.values()}.values()
    started = [Lost(), Lost()]
    monkeypatch.setattr(slots, "start", lambda *args: started.pop() if started else None)
    with pytest.raises(DeviceLostError, match="only a new process"):
        up(IMAGES["uint8"])
    assert not started
