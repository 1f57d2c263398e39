"""fp32 never uses TF32, even if PyTorch's default does; dtype "tf32" does."""

import copy
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import espan
from espan import DeviceError, Upscaler
from espan.backends.eager import Eager
from espan.backends.kernels import Plan
from espan.backends.select import backend_of, fastest_proven
from espan.cli import main
from espan.evaluation.benchmark import evaluate
from espan.networks.deploy import copy_to
from espan.options import WITH_TF32
from espan.shortcut import _cached
from espan.system.devices import pick_dtype
from espan_kernels import convolution
from tests.support.makers import noise, random_net
from tests.support.slots import with_slots
from tests.support.tf32 import rounded, tf32_device

CPU = torch.device("cpu")


@pytest.fixture
def device(monkeypatch):
    return tf32_device(monkeypatch)


@pytest.fixture(scope="module")
def net():
    """A network deep enough to detect TF32: on an H100 the error is 0.0024 of 1.86."""
    return espan.load("espan-x4")


def test_emulated_tf32_keeps_ten_mantissa_bits():
    x = torch.tensor([1 + 2**-10, 1 + 2**-11 - 2**-20, -1 - 2**-11, 3.0, 0.0])
    assert rounded(x).tolist() == [1 + 2**-10, 1, -1 - 2**-10, 3, 0]


@torch.no_grad()
def test_tf32_is_an_argument_of_conv2d(device):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 8, 5, 5, generator=generator) for n in (1, 4))
    exact = F.conv2d(x, weight, padding=2)
    coarse = F.conv2d(rounded(x), rounded(weight), padding=2)
    assert (exact - coarse).abs().max() > 1e-3
    with device:
        assert torch.equal(F.conv2d(x, weight, padding=2), coarse)
        assert torch.equal(convolution.conv2d(x, weight, padding=2), exact)
        assert torch.equal(convolution.conv2d(x, weight, padding=2, tf32=True), coarse)


@torch.no_grad()
def test_filters_of_single_channels_never_use_tf32(device):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator) for shape in ((1, 2, 9, 8), (8, 1, 3, 3)))
    exact = F.conv2d(x, weight, stride=2, groups=2)
    with device:
        assert not torch.equal(F.conv2d(x, weight, stride=2, groups=2), exact)
        assert torch.equal(convolution.depthwise(x, weight, stride=2), exact)


def test_compiled_networks_control_tf32_too(device):
    """Inductor compiles convolutions by the global flag cudnn.allow_tf32, except for our own op."""
    graphs = []

    def keep(graph, _inputs):
        graphs.append(graph.code)
        return graph.forward

    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(*shape, generator=generator) for shape in ((1, 3, 6, 7), (4, 3, 3, 3), (4,))
    ]
    results = []
    for run in (
        lambda *args: F.conv2d(*args, padding=1),
        torch.compile(lambda *args: convolution.conv2d(*args, 1), backend=keep, fullgraph=True),
    ):
        arguments = [each.clone().requires_grad_() for each in inputs]
        y = run(*arguments)
        y.square().sum().backward()
        results.append([y.detach(), *(each.grad for each in arguments)])
    assert len(graphs) == 1 and "espan.conv2d" in graphs[0]
    torch.testing.assert_close(results[0], results[1])
    torch.library.opcheck(convolution._opaque, (*inputs, 1, False))


class Kernels(Eager):
    """Replaces `Plan`: kernels that ignore cudnn.allow_tf32."""

    def __init__(self, net, impl):
        super().__init__(copy_to(net, CPU, torch.float64))

    def __call__(self, x):
        return self.net(x.double()).float()

    def bind(self, pixels):
        return lambda: self.checked(pixels)

    def checked(self, pixels):
        y = self(pixels.float() / 255).clamp(0, 1)
        return (y * 255).round().to(torch.uint8), torch.tensor(True)


class Tf32Kernels(Kernels):
    """Kernels with the errors of TF32."""

    def __init__(self, net, impl):
        Eager.__init__(self, copy_to(net, CPU, torch.float32, tf32=True))

    def __call__(self, x):
        return self.net(x)


def net_of(backend):
    assert type(backend) is Eager
    return backend.net


def test_a_correct_kernel_is_used(device, net, monkeypatch, caplog):
    monkeypatch.setattr("espan.backends.select.Plan", Kernels)
    with device:
        assert isinstance(fastest_proven(copy_to(net, CPU, torch.float32)), Kernels)
    assert not caplog.records


def test_a_kernel_with_the_error_of_tf32_is_skipped(device, net, monkeypatch, caplog):
    monkeypatch.setattr("espan.backends.select.Plan", Tf32Kernels)
    copy = copy_to(net, CPU, torch.float32)
    with device:
        assert net_of(fastest_proven(copy)) is copy
    for record, name in zip(caplog.records, ("fastest", "triton"), strict=True):
        assert f"not using the {name} kernels: off by 0.00" in record.getMessage()


def test_a_correct_kernel_would_be_skipped_for_a_network_in_tf32(device, net, monkeypatch):
    """The original bug; proves that the tests above can fail."""
    monkeypatch.setattr("espan.backends.select.Plan", Kernels)
    with device:
        assert net_of(fastest_proven(net)) is net


# The float32 backends of a GPU: the network itself, and a plan whose steps can be eager ops.
BACKENDS = {"eager": Eager, "plan": lambda net: Plan(net, "eager")}


@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_allow_tf32_never_changes(device, net, backend):
    """cudnn.allow_tf32 stays as it was, in all threads and during a float32 image."""
    x = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    run = BACKENDS[backend](copy_to(net, CPU, torch.float32))
    want = copy_to(net, CPU, torch.float64)(x.double()).float()
    before = torch.backends.cudnn.allow_tf32
    with device:
        torch.testing.assert_close(run(x), want, rtol=0, atol=2e-5)
    assert before and len(device.flags) > 15 and all(device.flags)


@torch.no_grad()
def test_each_thread_has_its_own_precision(net, device):
    x = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    nets = {tf32: copy_to(net, CPU, torch.float32, tf32) for tf32 in (False, True)}
    with device:
        alone = {tf32: run(x) for tf32, run in nets.items()}
    assert (alone[True] - alone[False]).abs().max() > 1e-4
    start, same = threading.Barrier(len(nets)), []

    def work(tf32):
        with torch.no_grad(), type(device)():
            start.wait()
            same.extend(torch.equal(nets[tf32](x), alone[tf32]) for _ in range(5))

    threads = [threading.Thread(target=work, args=[tf32]) for tf32 in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 10


def on_slots(net, run) -> Upscaler:
    """A float32 upscaler that runs `run` on stream slots, as on a GPU."""
    up = Upscaler(net, device="cpu", dtype="fp32")
    up._runner.backends[torch.float32] = run
    with_slots(up)
    return up


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_of_16_bits_are_float32(device, net, backend):
    image = noise(17, 21, 3, dtype=np.uint16)
    want = Upscaler(net, device="cpu", dtype="fp32")(image)
    up = on_slots(net, BACKENDS[backend](copy_to(net, CPU, torch.float32)))
    with device:
        got = up(image)
        coarse = on_slots(net, Eager(copy_to(net, CPU, torch.float32, tf32=True)))(image)
    assert np.abs(got.astype(int) - want).max() <= 1
    assert np.abs(coarse.astype(int) - want).max() > 20


@pytest.mark.shared
@pytest.mark.parametrize("backend", BACKENDS)
def test_set5_equals_the_cpu_within_a_thousandth_of_a_decibel(device, net, backend, shared):
    """With stream slots, convolutions and 8-bit results of a GPU in float32."""
    on_cpu = Upscaler(net, device="cpu", dtype="fp32")
    on_gpu = on_slots(net, BACKENDS[backend](copy_to(net, CPU, torch.float32)))
    data = shared / "data/benchmark/Set5"
    want = [*evaluate(on_cpu, data, 4)]
    with device:
        got = [*evaluate(on_gpu, data, 4)]
    assert len(want) == 6 and len(device.flags) > 5 * 15
    for one, other in zip(got, want, strict=True):
        assert one.name == other.name
        assert one.values["psnr_y"] == pytest.approx(other.values["psnr_y"], abs=1e-3)


def test_tf32_is_refused_by_name_without_a_gpu(net, weights, tmp_path, capsys):
    with pytest.raises(DeviceError, match=r"^dtype 'tf32': needs a CUDA device, got cpu$"):
        Upscaler(net, device="cpu", dtype="tf32")
    with pytest.raises(DeviceError, match="dtype 'tf32'"):
        espan.upscale(noise(4, 5, 3), device="cpu", dtype="tf32")
    image = tmp_path / "image.png"
    Image.fromarray(noise(4, 5, 3)).save(image)
    command = ["upscale", str(image), "-n", weights, "--device", "cpu", "--dtype", "tf32"]
    assert main(command) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "dtype 'tf32'" in errors


def test_dtype_tf32_is_float32_with_tf32_convolutions(net, monkeypatch):
    assert pick_dtype("tf32", torch.device("cuda")) == torch.float32
    monkeypatch.setattr("espan.execution.runner.pick_dtype", lambda *_: torch.float32)
    up = Upscaler(net, device="cpu", dtype="tf32")
    for each in (up, copy.deepcopy(up)):
        assert each.dtype == torch.float32
        assert each.explain() == "ESPAN by PyTorch's own operators in torch.float32 with TF32"
    _cached.cache_clear()
    for dtype in ("fp32", "tf32", "fp32", "tf32"):
        espan.upscale(noise(4, 5, 3), model="espan-x2", scale=2, device="cpu", dtype=dtype)
    assert (_cached.cache_info().misses, _cached.cache_info().hits) == (2, 2)


@pytest.mark.parametrize("backend", ["cuda", "triton", "openvino", "onnx"])
def test_backends_with_kernels_refuse_tf32(backend):
    net = copy_to(random_net(), CPU, torch.float32, tf32=True)
    with pytest.raises(
        DeviceError, match=f"'{backend}': does not support TF32, only {', '.join(WITH_TF32)}"
    ):
        backend_of(net, backend)
