"""Exact tiling: the result does not depend on tiles, memory, failures or threads."""

import numpy as np
import pytest
import torch

from espan import DeviceError, DeviceLostError, LimitError, NonFiniteError, Upscaler
from espan.execution.runner import SHARE, SLOTS, Runner
from espan.execution.tiling import Tile, cut
from espan.system import memory
from espan_kernels.native import CudaError
from tests.support.makers import free_memory, noise, random_net
from tests.support.threads import in_threads, same_bits_in_threads

IMAGE = noise(45, 61, 3, dtype=np.float32)
NET = random_net()


def untiled(image=IMAGE, **options) -> np.ndarray:
    return Upscaler(NET, tile=None, **({"device": "cpu", "dtype": "fp32"} | options))(image)


def assert_same(result: np.ndarray, expected: np.ndarray) -> None:
    # float32 convolutions of other shapes may sum in another order.
    assert np.abs(result - expected).max() <= 1e-6


@pytest.mark.parametrize("tile", [1, 7, 16, 30, 44, 45, 60, 61, 1000, (3, 40), (45, 8), (40, 1)])
def test_tiled_equals_untiled(tile):
    image = IMAGE[:9, :11] if tile == 1 else IMAGE
    assert_same(Upscaler(NET, device="cpu", dtype="fp32", tile=tile)(image), untiled(image))


@pytest.mark.parametrize("kind", ["ESPAN", "SPAN", "SPANF"])
def test_tiled_equals_untiled_for_every_network(kind):
    import espan

    config = {"ESPAN": {}, "SPAN": {"blocks": 2, "img_range": 1.0}, "SPANF": {"blocks": 2}}[kind]
    net = random_net(getattr(espan, kind), **config)
    expected = Upscaler(net, device="cpu", dtype="fp32", tile=None)(IMAGE)
    assert_same(Upscaler(net, device="cpu", dtype="fp32", tile=13)(IMAGE), expected)


def test_a_halo_one_pixel_too_small_is_detected():
    # Proves that the tests above can fail.
    up = Upscaler(NET, device="cpu", dtype="fp32", tile=13)
    up._runner.radius -= 1
    assert np.abs(up(IMAGE) - untiled()).max() > 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)], ids=str)
def test_images_smaller_than_the_halo(size):
    image = noise(*size, 3, dtype=np.float32)
    assert_same(Upscaler(NET, device="cpu", dtype="fp32", tile=4)(image), untiled(image))


def test_training_form_equals_the_folded_network():
    net = random_net(rep="espan")
    from espan import fold

    expected = Upscaler(fold(net), device="cpu", dtype="fp32", tile=None)(IMAGE)
    assert_same(Upscaler(net, device="cpu", dtype="fp32", tile=20)(IMAGE), expected)


@pytest.mark.parametrize("tile", [1, 2, 5, 16, 99])
def test_tiles_cover_everything_once_from_windows_of_one_size(tile):
    for height, width, halo in [(1, 1, 0), (10, 7, 1), (64, 65, 9), (5, 200, 23)]:
        # The entire image, its corner, its middle.
        for region in (
            Tile(0, height, 0, width),
            Tile(0, height - height // 3, width // 2, width),
            Tile(height // 3, height - height // 3, width // 3, width - width // 3),
        ):
            seen, shapes = np.zeros((height, width), int), set()
            for part, window in cut(region, (height, width), (tile, tile), halo):
                assert part.pixels > 0
                seen[part.area] += 1
                needed = seen * 0
                needed[max(part.y0 - halo, 0) : part.y1 + halo][
                    :, max(part.x0 - halo, 0) : part.x1 + halo
                ] = 1
                assert needed[window.area].sum() == needed.sum()
                assert max(window.size) <= tile + 2 * halo
                shapes.add(window.size)
            inside = np.zeros_like(seen)
            inside[region.area] = 1
            assert (seen == inside).all()
            assert len(shapes) == 1


def test_tiles_at_borders_are_larger_by_the_halo_they_do_not_need():
    # Two windows of 40 cover 60 columns: 30 each, plus a halo of 10 on one side.
    parts = [*cut(Tile(0, 8, 0, 60), (8, 60), (99, 20), 10)]
    assert [(tile.x0, tile.x1) for tile, _ in parts] == [(0, 30), (30, 60)]
    assert [(window.x0, window.x1) for _, window in parts] == [(0, 40), (20, 60)]


class Failing:
    """Makes `Runner._forward` raise `error` at the given calls, counted from 1."""

    def __init__(self, monkeypatch, calls, error):
        self.count, forward = 0, Runner._forward

        def failing(up, x, dtype):
            self.count += 1
            if self.count in calls:
                raise error
            return forward(up, x, dtype)

        monkeypatch.setattr(Runner, "_forward", failing)


OUT = {
    "torch": torch.OutOfMemoryError("CUDA out of memory"),
    "python": MemoryError(),
    "cpu": RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
}


@pytest.mark.parametrize("error", OUT)
# 2 x 2 tiles: the first, the second, the last, two in a row, and again later.
@pytest.mark.parametrize("calls", [{1}, {2}, {4}, {1, 2}, {2, 9}], ids=str)
def test_out_of_memory_goes_on_with_smaller_tiles(monkeypatch, calls, error):
    image = noise(90, 122, 3, dtype=np.float32)
    expected = untiled(image)
    up = Upscaler(NET, device="cpu", dtype="fp32", tile=60)
    failing = Failing(monkeypatch, calls, OUT[error])
    assert_same(up(image), expected)
    assert failing.count > 4 + len(calls)


def test_out_of_memory_does_not_repeat_finished_tiles(monkeypatch):
    failing = Failing(monkeypatch, {4}, OUT["torch"])
    Upscaler(NET, device="cpu", dtype="fp32", tile=60)(noise(90, 122, 3))
    assert failing.count == 4 + 4  # the fourth tile again, as 2 x 2


def test_out_of_memory_for_the_smallest_tile_is_an_error(monkeypatch):
    failing = Failing(monkeypatch, range(1, 1000), OUT["torch"])
    with pytest.raises(DeviceError, match="out of memory even for a tile of"):
        Upscaler(NET, device="cpu", dtype="fp32")(IMAGE)
    assert failing.count < 10


STATES = "CUDNN_STATUS_NOT_SUPPORTED CUDNN_STATUS_BAD_PARAM CUBLAS_STATUS_NOT_INITIALIZED"
HARMLESS = [RuntimeError(each) for each in (*STATES.split(), "CUDA error: invalid argument")]


@pytest.mark.parametrize("error", [RuntimeError("sizes"), ValueError("x"), KeyError(1), *HARMLESS])
def test_other_errors_stop_at_once(monkeypatch, error):
    failing = Failing(monkeypatch, {2}, error)
    with pytest.raises(type(error)) as caught:
        Upscaler(NET, device="cpu", dtype="fp32", tile=40)(IMAGE)
    assert caught.value is error
    assert failing.count == 2


ACCELERATOR = getattr(torch, "AcceleratorError", None)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered\nmore"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        CudaError("spab: cudaErrorLaunchFailure: unspecified launch failure; the CUDA context is"),
        *([ACCELERATOR("an error of the accelerator")] if ACCELERATOR else []),
    ],
    ids=str,
)
def test_a_lost_device_stops_at_once_and_says_so(monkeypatch, error):
    failing = Failing(monkeypatch, {2}, error)
    with pytest.raises(DeviceLostError, match="context is lost, only a new process") as caught:
        Upscaler(NET, device="cpu", dtype="fp32", tile=40)(IMAGE)
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)
    assert failing.count == 2


@torch.no_grad()
def overflowing_net(factor: float):
    """The same function, with activations that overflow float16 in bright areas."""
    net = random_net()
    for layer in (net.conv_cat.weight, net.conv_cat.bias):
        layer *= factor
    net.upsampler.weight /= factor
    return net


def test_overflowed_tiles_are_computed_again_in_float32(caplog):
    net = overflowing_net(2.0**16)
    up = Upscaler(net, device="cpu", dtype="fp16", tile=20)
    assert up.dtype == torch.float16
    result = up(IMAGE)
    assert "computed again in float32" in caplog.text
    assert np.isfinite(result).all()
    assert np.abs(result - untiled()).max() < 0.02


def test_overflowed_tiles_are_counted_for_each_thread():
    up = Upscaler(overflowing_net(2.0**16), device="cpu", dtype="fp16", tile=20)
    counts = {}

    def work(i: int) -> None:
        for _ in range(i):
            up(IMAGE)
        counts[i] = up.redone_here

    in_threads(work, 3)
    assert counts[0] == 0 and counts[2] == 2 * counts[1] > 0
    assert up.redone == counts[1] + counts[2] and up.redone_here == 0


@pytest.mark.parametrize("free", [0, 2**20, 2**24, 2**40])
def test_automatic_tiles_fit_the_free_memory_of_a_gpu(monkeypatch, free):
    monkeypatch.setattr(memory, "free_on", lambda device: free)
    up = Upscaler(NET, device="cpu", dtype="fp32")
    window = up._runner.window
    taken = SLOTS * memory.for_pixels(window, NET.config["channels"], torch.float32)
    smallest = (2 * NET.radius + 16) ** 2
    assert taken <= SHARE * free or window == smallest
    assert window < 480 * 480 or free == 2**40
    assert_same(up(IMAGE), untiled())


@torch.no_grad()
def test_overflow_in_float32_is_an_error_and_no_image():
    net = random_net()
    net.upsampler.bias += float("inf")
    for dtype in ("fp32", "bf16"):
        with pytest.raises(NonFiniteError, match="not finite"):
            Upscaler(net, device="cpu", dtype=dtype)(noise(8, 8, 3))


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 4), ("bf16", 12)])
def test_half_precision_is_close_to_float32(dtype, tolerance):
    image = noise(45, 61, 3)
    difference = untiled(image, dtype=dtype).astype(int) - untiled(image)
    assert np.abs(difference).max() <= tolerance


def test_auto_keeps_float32_for_more_than_8_bits():
    image = noise(20, 20, 3, dtype=np.uint16)
    np.testing.assert_array_equal(untiled(image, device="cpu", dtype="auto"), untiled(image))


@pytest.mark.parametrize("tile", ["auto", None, 8])
def test_memory_is_checked_before_any_work(monkeypatch, tile):
    free_memory(monkeypatch, 1000)
    failing = Failing(monkeypatch, {1}, AssertionError("the network ran"))
    with pytest.raises(LimitError, match=r"pixels to \d+ x \d+ need .* MiB of memory"):
        Upscaler(NET, device="cpu", dtype="fp32", tile=tile)(IMAGE, 1.5)
    assert failing.count == 0


def test_smaller_tiles_need_less_memory(monkeypatch):
    image = noise(300, 300, 3)
    free_memory(monkeypatch, 20 * 2**20)
    with pytest.raises(LimitError):
        Upscaler(NET, device="cpu", dtype="fp32", tile=None)(image)
    assert Upscaler(NET, device="cpu", dtype="fp32", tile=64)(image).shape == (1200, 1200, 3)


def test_unknown_memory_is_not_limited(monkeypatch):
    free_memory(monkeypatch, None)
    assert untiled(noise(4, 4, 3)).shape == (16, 16, 3)


@pytest.mark.parametrize("options", [{"dtype": "fp32"}, {"dtype": "bf16", "tile": 20}], ids=str)
def test_eight_threads_get_the_bits_of_one(options):
    up = Upscaler(NET, device="cpu", **options)
    images = [noise(30, 20 + n, 4 if n % 2 else 3, seed=n) for n in range(8)]
    same_bits_in_threads(up, images, 5)


@pytest.mark.gpu
def test_gpu_out_of_memory_and_tiles():
    expected = untiled(device="cpu")
    up = Upscaler(NET, device="cuda", dtype="fp32", tile=13)
    assert np.abs(up(IMAGE) - expected).max() <= 1e-5
