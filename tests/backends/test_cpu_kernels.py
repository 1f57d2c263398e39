"""The backend of bfloat16 on a CPU: equal to the network, on both units, in memory used again."""

import logging
import mmap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from espan import ESPAN, Upscaler, fold, load
from espan.backends import select
from espan.backends.bfloat16 import Bfloat16Network, refusal
from espan.backends.cpu import CpuNetwork
from espan.networks.deploy import copy_to
from espan_kernels import cpu
from tests.backends.test_cpu import NETS, SIZES, image, made
from tests.support.makers import noise, python, random_net

HERE = cpu.refusal()
pytestmark = pytest.mark.skipif(HERE is not None, reason=str(HERE))
UNITS = [unit for unit in cpu.UNITS if not HERE and cpu.MODULE.has(unit)]


def pair(name: str):
    """A network in bfloat16, and one in float64 with the very same weights."""
    half, double = made(name, torch.bfloat16), made(name)
    double.load_state_dict({key: value.double() for key, value in half.state_dict().items()})
    return half, double


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", NETS)
def test_is_as_exact_as_the_network(name, unit):
    net, double = pair(name)
    run = Bfloat16Network(net, unit)
    for n, height, width in [*SIZES, (1, 7, 64), (2, 5, 65)]:
        x = image(n, 3, height, width).bfloat16()
        got, want = run(x), double(x.double())
        assert got.shape == want.shape and got.dtype == torch.bfloat16
        if n:
            own = (net(x).double() - want).abs().max()
            assert (got.double() - want).abs().max() <= 2 * own


@pytest.mark.parametrize("channels", [3, 28, 32, 40, 52, 64])
def test_every_number_of_channels(channels):
    torch.manual_seed(0)
    net = ESPAN(channels=channels, blocks=2).eval().requires_grad_(False)
    double, half = ESPAN(channels=channels, blocks=2).double(), net.bfloat16()
    double.load_state_dict({key: value.double() for key, value in half.state_dict().items()})
    x = image(1, 3, 9, 33).bfloat16()
    with torch.no_grad():
        want = double(x.double())
        own = (half(x).double() - want).abs().max()
    assert (Bfloat16Network(half)(x).double() - want).abs().max() <= 2 * own


def test_memory_used_again_leaves_no_trace():
    net = made("span", torch.bfloat16)
    run = Bfloat16Network(net)
    first, second = (image(1, 3, 20, 14).bfloat16() for _ in range(2))
    run(torch.full_like(first, float("nan")))
    assert run(first).equal(Bfloat16Network(net)(first))
    run(image(1, 3, 9, 5).bfloat16())
    assert run(second).equal(Bfloat16Network(net)(second))


def test_what_is_not_finite_reaches_the_result():
    run = Bfloat16Network(made("espan", torch.bfloat16))
    x = image(1, 3, 12, 40).bfloat16()
    x[0, 1, 5, 37] = float("nan")
    y = run(x)
    assert y[..., 20, 148].isnan().all() and y[..., 0, 0].isfinite().all()


def test_threads_do_not_see_each_other():
    run = Bfloat16Network(made("espan", torch.bfloat16))
    images = [image(1, 3, 16 + i % 2, 20).bfloat16() for i in range(12)]
    want = [run(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        got = pool.map(run, images)
    assert all(a.equal(b) for a, b in zip(got, want, strict=True))


def test_it_takes_the_memory_it_tells():
    net = made("span", torch.bfloat16)
    run = Bfloat16Network(net)
    before = run.memory(1, 60, 40)
    y = run(image(1, 3, 60, 40).bfloat16())
    (maps,) = run._idle
    assert before == maps.bytes + y.nbytes
    assert run.memory(1, 60, 40) == y.nbytes


def test_an_upscaler_takes_it_for_images_of_8_bits():
    up = Upscaler(random_net(), device="cpu", dtype="bf16")
    assert {type(each) for each in up._runner.backends.values()} == {Bfloat16Network, CpuNetwork}
    assert up.explain().endswith(f"({cpu.unit()}), in torch.bfloat16")
    image = noise(41, 37, 3)
    eager = Upscaler(up.network, device="cpu", dtype="fp32", backend="eager")(image)
    assert np.abs(up(image).astype(int) - eager).max() <= 3


def test_tiles_give_the_same_bits():
    """Each pixel has its sums in one order, wherever its tile begins."""
    net, image = random_net(), noise(90, 101, 3)
    whole = Upscaler(net, device="cpu", dtype="bf16", tile=None)(image)
    tiles = Upscaler(net, device="cpu", dtype="bf16", tile=(31, 47))(image)
    assert np.array_equal(whole, tiles)


@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_a_kernel_that_gives_another_image_is_left_aside(monkeypatch, caplog, fault):
    def broken(layers, threads, unit):
        if fault == "fails":
            raise RuntimeError("illegal instruction")

    monkeypatch.setattr(cpu, "run", broken)
    with caplog.at_level(logging.WARNING, "espan"):
        backend = select.backend_of(random_net().bfloat16(), "auto")
    assert isinstance(backend, CpuNetwork)
    assert "not using the CPU kernels: " in caplog.text


@pytest.mark.shared
@pytest.mark.parametrize("name", ["espan_x4_ntire2025", "span28_x4_ntire2024", "teachers/*"])
def test_published_networks_use_the_kernels(shared, caplog, name):
    """Larger networks than ours: their results grow if an image is nothing but noise."""
    for path in sorted((shared / "weights").glob(f"{name}.pth")):
        net = copy_to(fold(load(path)), torch.device("cpu"), torch.bfloat16)
        assert isinstance(select.backend_of(net, "auto"), Bfloat16Network), path
    assert not caplog.records


def test_what_it_refuses(monkeypatch):
    assert refusal(random_net().bfloat16()) is None
    assert "not in torch.float32" in refusal(random_net())
    wide = ESPAN(channels=80, blocks=1).bfloat16()
    assert refusal(wide) == "CPU kernels take up to 64 channels, got 80"
    monkeypatch.setattr(cpu, "unit", lambda: None)
    assert refusal(random_net().bfloat16()) == "this processor cannot multiply bfloat16"
    assert isinstance(select.backend_of(random_net().bfloat16(), "auto"), CpuNetwork)


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="needs mprotect")
@pytest.mark.parametrize("end", ["first", "last"])
def test_nothing_outside_of_the_maps_is_read_or_written(end):
    """Every map ends, or begins, at a page without access: a byte beyond it ends the process."""
    code = f"""
import ctypes, mmap
import torch
from espan.backends import bfloat16
from tests.backends.test_cpu import made

PAGE, held, libc = mmap.PAGESIZE, [], ctypes.CDLL(None, use_errno=True)

def guarded(elements, dtype):
    size = 2 * elements
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    held.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        address = ctypes.c_void_p(start + page * PAGE)
        assert libc.mprotect(address, ctypes.c_size_t(PAGE), 0) == 0
    offset = PAGE if {end!r} == "first" else (pages + 1) * PAGE - size
    return torch.frombuffer(memory, dtype=dtype, count=elements, offset=offset)

bfloat16.zeros = guarded
for name in ("espan", "span", "spanf"):
    net = made(name, torch.bfloat16)
    for unit in {UNITS!r}:
        run = bfloat16.Bfloat16Network(net, unit)
        for height, width in [(1, 1), (7, 31), (5, 32), (4, 33), (3, 64)]:
            assert run(torch.rand(1, 3, height, width).bfloat16()).isfinite().all()
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
