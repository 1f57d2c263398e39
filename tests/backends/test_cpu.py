"""The CPU backend gives the network's own result, whatever its memory held before."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from espan import Upscaler
from espan.backends import cpu
from espan.backends.cpu import CpuNetwork
from espan.errors import DeviceError
from espan.networks.espan import ESPAN
from espan.networks.span import SPAN
from espan.networks.spanf import SPANF
from tests.support.makers import python

NETS = {
    "espan": lambda: ESPAN(channels=8, blocks=2),
    "one block": lambda: ESPAN(channels=8, blocks=1, last_convs=0),
    "blocks of one conv": lambda: ESPAN(channels=8, blocks=2, last_convs=1, scale=2),
    "span": lambda: SPAN(channels=12, blocks=2, scale=3),
    "span, one block": lambda: SPAN(channels=12, blocks=1),
    "spanf": lambda: SPANF(channels=8, blocks=2, scale=2),
    "spanf x3": lambda: SPANF(channels=8, blocks=1, scale=3),
}
SIZES = [(1, 24, 17), (1, 1, 1), (2, 1, 31), (1, 40, 2), (0, 8, 8), (3, 9, 16)]


def made(name: str, dtype=torch.float64):
    torch.manual_seed(0)
    net = NETS[name]().eval().requires_grad_(False)
    for key, parameter in net.named_parameters():
        if key.endswith("bias"):  # large, so that borders other than zero are detected
            parameter.normal_()
    return net.to(dtype)


def image(*shape: int, dtype=torch.float64):
    return torch.rand(shape, dtype=torch.float64).to(dtype)


@pytest.fixture(params=[(1 << 18, 1 << 13), (8 * 20, 1 << 13), (8 * 97, 20)], ids=str)
def strip_sizes(request, monkeypatch):
    for name, value in zip(("STRIP_BYTES", "GATE_PIXELS"), request.param, strict=True):
        monkeypatch.setattr(cpu, name, value)


@pytest.mark.parametrize("name", NETS)
def test_equals_the_network(name, strip_sizes):
    net = made(name)
    run = CpuNetwork(net)
    for n, h, w in SIZES:
        x = image(n, 3, h, w)
        got, want = run(x), net(x)
        assert got.shape == want.shape and got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_as_accurate_as_the_network(dtype):
    net = made("espan", dtype)
    x = image(1, 3, 30, 22, dtype=dtype)
    want = made("espan")(x.double())
    own, errors = net(x).double() - want, CpuNetwork(net)(x).double() - want
    assert errors.abs().max() <= 2 * own.abs().max()


def test_reused_memory_does_not_affect_results(strip_sizes):
    net = made("span")
    run = CpuNetwork(net)
    first, second = image(1, 3, 20, 14), image(1, 3, 20, 14)
    run(torch.full_like(first, float("nan")))
    assert run(first).equal(CpuNetwork(net)(first))
    run(image(1, 3, 9, 5))
    assert run(second).equal(CpuNetwork(net)(second))


def test_threads_do_not_see_each_other():
    net = made("espan")
    run = CpuNetwork(net)
    images = [image(1, 3, 16 + i % 2, 20) for i in range(12)]
    want = [run(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        got = pool.map(run, images)
    assert all(a.equal(b) for a, b in zip(got, want, strict=True))


def test_strides_of_the_input_do_not_matter():
    net = made("espan")
    run = CpuNetwork(net)
    x = image(1, 3, 24, 40)
    view = x.permute(0, 1, 3, 2)[:, :, ::2]
    assert run(view).equal(run(view.contiguous()))


def test_weights_are_copied():
    net = made("espan")
    run, x = CpuNetwork(net), image(1, 3, 12, 12)
    before = run(x)
    for parameter in net.parameters():
        parameter.zero_()
    assert run(x).equal(before)


def test_the_result_is_channels_last_and_without_gradient():
    y = CpuNetwork(made("espan", torch.float32))(image(2, 3, 8, 8, dtype=torch.float32))
    assert y.is_contiguous(memory_format=torch.channels_last) and not y.requires_grad


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_gives_the_same_image():
    net = made("one block", torch.float32)
    image = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
    want = Upscaler(net, device="cpu", dtype="fp32")(image)
    got = Upscaler(net, device="cpu", dtype="fp32", backend="compile")(image)
    assert np.abs(got.astype(int) - want).max() <= 1


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match="needs a C\\+\\+ compiler, 'no-such-compiler'"):
        Upscaler(made("espan", torch.float32), device="cpu", backend="compile")


def test_an_upscaler_uses_it_on_a_cpu_without_kernels(monkeypatch):
    monkeypatch.setattr("espan_kernels.cpu.unit", lambda dtype: None)
    up = Upscaler(made("espan", torch.float32), device="cpu", dtype="fp32")
    assert {type(backend) for backend in up._runner.backends.values()} == {CpuNetwork}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("model", ['"espan-x4"', "espan.ESPAN(channels=32)"])
def test_making_an_upscaler_starts_no_threads(model):
    """More OpenMP threads than cores would make the threads of others sleep at barriers."""
    code = f"""
import os, threading
import numpy, torch
torch.set_num_threads(4)
import espan
def threads():
    return len(os.listdir("/proc/self/task"))
before = threads()
half = espan.Upscaler({model}, device="cpu", dtype="bf16")
upscaler = espan.Upscaler({model}, device="cpu", dtype="fp32")
assert threads() == before, (before, threads())
assert torch.get_num_threads() == 4
upscaler(numpy.zeros((64, 64, 3), numpy.uint8))
assert threads() == before + 3, (before, threads())
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_new_thread_uses_the_number_of_threads_that_was_set(backend):
    """PyTorch passes it to a new thread at the first call that reads it; convolutions do not."""
    code = f"""
import os, threading
import numpy, torch
import espan
upscaler = espan.Upscaler("espan-x4", device="cpu", dtype="fp32", backend={backend!r})
torch.set_num_threads(1)
found = []
def work():
    before = os.listdir("/proc/self/task")
    upscaler(numpy.zeros((64, 64, 3), numpy.uint8))
    found.append(len(os.listdir("/proc/self/task")) - len(before))
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert found == [0], found
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
