"""The CPU kernels' backend: equal to the network, on every unit, in memory used again."""

import logging
import mmap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from espan import ESPAN, SPAN, Upscaler, fold, load
from espan.backends import select
from espan.backends.cpu import CpuNetwork
from espan.backends.cpu_kernels import CpuKernels, refusal
from espan.networks.deploy import copy_to
from espan_kernels import cpu
from tests.backends.test_cpu import NETS, SIZES, image, made
from tests.support.makers import noise, python, random_net

DTYPES = {unit: dtype for dtype, units in cpu.UNITS.items() for unit in units}
UNITS = [unit for unit in DTYPES if cpu.MODULE and cpu.MODULE.has(unit)]
on_every_unit = pytest.mark.parametrize("unit", UNITS)
in_every_dtype = pytest.mark.parametrize("dtype", sorted({DTYPES[unit] for unit in UNITS}, key=str))
pytestmark = pytest.mark.skipif(not UNITS, reason=cpu.REASON or "no unit on this processor")


def pair(name: str, dtype: torch.dtype):
    """A network in `dtype`, and one in float64 with the very same weights."""
    net, double = made(name, dtype), made(name)
    double.load_state_dict({key: value.double() for key, value in net.state_dict().items()})
    return net, double


@on_every_unit
@pytest.mark.parametrize("name", NETS)
def test_is_as_exact_as_the_network(name, unit):
    dtype = DTYPES[unit]
    net, double = pair(name, dtype)
    run = CpuKernels(net, unit)
    for n, height, width in [*SIZES, (1, 7, 64), (2, 5, 65)]:
        x = image(n, 3, height, width).to(dtype)
        got, want = run(x), double(x.double())
        assert got.shape == want.shape and got.dtype == dtype
        if n:
            own = (net(x).double() - want).abs().max()
            assert (got.double() - want).abs().max() <= 2 * own


@on_every_unit
@pytest.mark.parametrize("channels", [3, 26, 27, 28, 32, 40, 48, 52, 64])
def test_every_number_of_channels(channels, unit):
    dtype = DTYPES[unit]
    torch.manual_seed(0)
    net = ESPAN(channels=channels, blocks=2).eval().requires_grad_(False).to(dtype)
    double = ESPAN(channels=channels, blocks=2).double()
    double.load_state_dict({key: value.double() for key, value in net.state_dict().items()})
    x = image(1, 3, 9, 33).to(dtype)
    with torch.no_grad():
        want = double(x.double())
        own = (net(x).double() - want).abs().max()
    assert (CpuKernels(net, unit)(x).double() - want).abs().max() <= 2 * own


@on_every_unit
@pytest.mark.parametrize("channels", [12, 28])
def test_memory_used_again_leaves_no_trace(channels, unit):
    dtype = DTYPES[unit]
    torch.manual_seed(0)
    net = SPAN(channels=channels, blocks=2).eval().requires_grad_(False).to(dtype)
    run = CpuKernels(net, unit)
    first, second = (image(1, 3, 20, 14).to(dtype) for _ in range(2))
    run(torch.full_like(first, float("nan")))
    assert run(first).equal(CpuKernels(net, unit)(first))
    run(image(1, 3, 9, 5).to(dtype))
    assert run(second).equal(CpuKernels(net, unit)(second))


@on_every_unit
def test_what_is_not_finite_reaches_the_result(unit):
    run = CpuKernels(made("espan", DTYPES[unit]), unit)
    x = image(1, 3, 12, 40).to(DTYPES[unit])
    x[0, 1, 5, 37] = float("nan")
    y = run(x)
    assert y[..., 20, 148].isnan().all() and y[..., 0, 0].isfinite().all()


@in_every_dtype
def test_threads_do_not_see_each_other(dtype):
    run = CpuKernels(made("espan", dtype))
    images = [image(1, 3, 16 + i % 2, 20).to(dtype) for i in range(12)]
    want = [run(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        got = pool.map(run, images)
    assert all(a.equal(b) for a, b in zip(got, want, strict=True))


@in_every_dtype
def test_it_takes_the_memory_it_tells(dtype):
    run = CpuKernels(made("span", dtype))
    before = run.memory(1, 60, 40)
    y = run(image(1, 3, 60, 40).to(dtype))
    (maps,) = run._idle
    assert before == maps.bytes + y.nbytes
    assert run.memory(1, 60, 40) == y.nbytes


@in_every_dtype
@pytest.mark.parametrize("bits", [8, 16])
def test_an_upscaler_uses_it(dtype, bits):
    up = Upscaler(random_net(), device="cpu", dtype=dtype)
    assert {type(each) for each in up._runner.backends.values()} == {CpuKernels}
    assert up.explain().endswith(f"({cpu.unit(dtype)}), in {dtype}")
    image = noise(41, 37, 3)
    if bits == 16:
        image = image.astype(np.uint16) * 257
    eager = Upscaler(up.network, device="cpu", dtype="fp32", backend="eager")(image)
    off = np.abs(up(image).astype(int) - eager).max()
    assert off <= (3 if dtype == torch.bfloat16 else 1) * np.iinfo(image.dtype).max / 255


def test_images_of_more_than_8_bits_are_computed_in_float32():
    up = Upscaler(random_net(), device="cpu")
    image = noise(41, 37, 3).astype(np.uint16) * 257
    exact = Upscaler(up.network, device="cpu", dtype="fp32")
    assert np.array_equal(up(image), exact(image))


@in_every_dtype
def test_tiles_give_the_same_bits(dtype):
    """Each pixel has its sums in one order, wherever its tile begins."""
    net, image = random_net(), noise(90, 101, 3)
    whole = Upscaler(net, device="cpu", dtype=dtype, tile=None)(image)
    tiles = Upscaler(net, device="cpu", dtype=dtype, tile=(31, 47))(image)
    assert np.array_equal(whole, tiles)


@in_every_dtype
@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_a_kernel_that_gives_another_image_is_left_aside(monkeypatch, caplog, fault, dtype):
    run = cpu.run

    def broken(layers, threads, unit):
        if fault == "fails":
            raise RuntimeError("illegal instruction")
        biased = replace(layers[0], bias=layers[0].bias + 1)
        run([biased, *layers[1:]], threads, unit)

    monkeypatch.setattr(cpu, "run", broken)
    with caplog.at_level(logging.WARNING, "espan"):
        backend = select.backend_of(random_net().to(dtype), "auto")
    assert isinstance(backend, CpuNetwork)
    assert "not using the CPU kernels: " in caplog.text


@pytest.mark.shared
@in_every_dtype
@pytest.mark.parametrize("name", ["espan_x4_ntire2025", "span28_x4_ntire2024", "teachers/*"])
def test_published_networks_use_the_kernels(shared, caplog, name, dtype):
    """Larger networks than ours: their results grow if an image is nothing but noise."""
    for path in sorted((shared / "weights").glob(f"{name}.pth")):
        net = copy_to(fold(load(path)), torch.device("cpu"), dtype)
        assert isinstance(select.backend_of(net, "auto"), CpuKernels), path
    assert not caplog.records


@in_every_dtype
def test_what_it_refuses(monkeypatch, dtype):
    assert refusal(random_net().to(dtype)) is None
    why = "CPU kernels compute in bfloat16 or float32, not in torch.float16"
    assert refusal(random_net().half()) == why
    wide = ESPAN(channels=80, blocks=1).to(dtype)
    assert refusal(wide) == "CPU kernels take up to 64 channels, got 80"
    monkeypatch.setattr(cpu, "unit", lambda dtype: None)
    assert refusal(random_net().to(dtype)) == f"this processor cannot multiply {dtype}"
    assert isinstance(select.backend_of(random_net().to(dtype), "auto"), CpuNetwork)


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="needs mprotect")
@pytest.mark.parametrize("end", ["first", "last"])
def test_nothing_outside_of_the_maps_is_read_or_written(end):
    """Every map ends, or begins, at a page without access: a byte beyond it ends the process."""
    code = f"""
import ctypes, mmap
import torch
from espan.backends import cpu_kernels
from tests.backends.test_cpu import made

PAGE, held, libc = mmap.PAGESIZE, [], ctypes.CDLL(None, use_errno=True)

def guarded(elements, dtype):
    size = dtype.itemsize * elements
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    held.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        address = ctypes.c_void_p(start + page * PAGE)
        assert libc.mprotect(address, ctypes.c_size_t(PAGE), 0) == 0
    offset = PAGE if {end!r} == "first" else (pages + 1) * PAGE - size
    return torch.frombuffer(memory, dtype=dtype, count=elements, offset=offset)

cpu_kernels.zeros = guarded
dtypes = {{str(each): each for each in (torch.bfloat16, torch.float32)}}
for name in ("espan", "span", "spanf"):
    for unit, dtype in {[(unit, str(DTYPES[unit])) for unit in UNITS]!r}:
        run = cpu_kernels.CpuKernels(made(name, dtypes[dtype]), unit)
        for height, width in [(1, 1), (7, 31), (5, 32), (4, 33), (3, 64)]:
            assert run(torch.rand(1, 3, height, width).to(dtypes[dtype])).isfinite().all()
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
