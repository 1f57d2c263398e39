"""Executors with CUDA kernels: in the host build, or on a GPU with graphs and streams."""

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from espan import SPAN, Upscaler
from tests.support.makers import noise, random_net
from tests.support.slots import with_slots
from tests.support.threads import same_bits_in_threads

# Enough channels for the CUDA kernels; they run one network in full, the other without its head.
WIDE = {
    "espan": lambda: random_net(channels=32, blocks=1, last_convs=2),
    "span": lambda: random_net(SPAN, channels=28, blocks=2),
}


@pytest.mark.usefixtures("host_build")
@pytest.mark.parametrize("tile", [None, 14])
def test_cuda_kernels_give_the_image_shim(tile, caplog):
    net, image = WIDE["espan"](), noise(3, 38, 3)
    expected = Upscaler(net, device="cpu", dtype="fp32")(image).astype(int)
    up = Upscaler(net, device="cpu", dtype="fp16", backend="cuda", tile=tile)
    assert not caplog.records
    slots = with_slots(up) if tile else []
    assert np.abs(up(image) - expected).max() <= 4
    assert [slot.log.count("mark") for slot in slots] == [1] * len(slots)
    assert "block 1 = spab(feature) in buffer 1: cuda" in up.explain()


@pytest.mark.usefixtures("host_build")
def test_refusals_of_cuda_kernels_are_logged_shim(caplog):
    net, image = WIDE["span"](), noise(3, 4, 3)
    expected = Upscaler(net, device="cpu", dtype="fp32")(image).astype(int)
    up = Upscaler(net, device="cpu", dtype="fp16", backend="cuda")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and said[0].startswith("no CUDA kernel for conv3x3: CUDA convolutions")
    assert np.abs(up(image) - expected).max() <= 4


@pytest.mark.usefixtures("host_build")
def test_more_bits_go_round_the_cuda_kernels_shim():
    net, image = WIDE["espan"](), noise(9, 14, 3, dtype=np.uint16)
    up = Upscaler(net, device="cpu", backend="cuda", dtype="fp16")
    up._runner.low_precision = False  # as dtype="auto" on a GPU
    exact = Upscaler(net, device="cpu", dtype="fp32")(image).astype(int)
    assert np.abs(up(image) - exact).max() <= 2


def on_gpu(name: str = "espan", **options) -> Upscaler:
    return Upscaler(WIDE[name](), **({"device": "cuda", "dtype": "fp16"} | options))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["auto", "cuda", "triton", "eager"])
@pytest.mark.parametrize("name", WIDE)
def test_replays_equal_plain_launches(name, backend, caplog):
    up = on_gpu(name, backend=backend)
    for size in [(31, 45), (64, 17), (1, 1), (31, 45)]:
        for image in (noise(*size, 3), noise(*size), noise(*size, 3, dtype=np.uint16)):
            first = up(image)  # without a graph
            for _ in range(3):
                np.testing.assert_array_equal(up(image), first)
            expected = Upscaler(WIDE[name](), device="cpu", dtype="fp32")(image).astype(int)
            assert np.abs(first - expected).max() <= 4 * (1 if image.dtype == np.uint8 else 257)
    assert "CUDA graph capture failed" not in caplog.text


@pytest.mark.gpu
def test_gpu_tiles_batches_and_devices():
    image = torch.from_numpy(noise(4, 3, 90, 122))
    whole = on_gpu(tile=None)(image).int()
    assert (on_gpu(tile=60)(image).int() - whole).abs().max() <= 1
    there = on_gpu()(image.cuda())
    assert there.is_cuda and (there.cpu().int() - whole).abs().max() <= 1


@pytest.mark.gpu
def test_gpu_threads_get_the_bits_of_one():
    up = on_gpu(tile=40)
    images = [noise(70, 60 + n, 3, seed=n) for n in range(6)]
    same_bits_in_threads(up, images, 20)


@pytest.mark.gpu
def test_gpu_out_of_memory_goes_on_with_smaller_tiles(caplog):
    image = noise(1500, 2000, 3)
    expected = on_gpu(tile=300)(image).astype(int)
    up = on_gpu(tile=None)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1e9 / total)
    try:
        assert np.abs(up(image) - expected).max() <= 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory" in caplog.text


@pytest.mark.gpu
def test_gpu_stream_slots_overlap():
    """Copies and kernels of the two slots overlap."""
    up, image = on_gpu(tile=400), noise(800, 1600, 3)
    up(image)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        up(image)
    spans = [
        (event.time_range.start, event.time_range.end, "Memcpy" in event.name)
        for event in seen.events()
    ]
    copies = [each for each in spans if each[2]]
    kernels = [each for each in spans if not each[2]]
    assert any(a < d and c < b for a, b, _ in copies for c, d, _ in kernels)
