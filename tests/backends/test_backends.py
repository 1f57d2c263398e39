"""All backends give the same images as plain PyTorch."""

import sys

import numpy as np
import pytest
import torch

from espan import SPAN, SPANF, DeviceError, Upscaler
from espan.backends import openvino as backend_openvino
from espan.backends.eager import Eager
from espan.backends.kernels import Plan
from espan.backends.select import BY_NAME, backend_of, fastest_proven
from espan.cli import main, options
from espan.networks.deploy import copy_to
from espan.options import BACKENDS
from espan_kernels import machine
from tests.support.gpu import DEVICE
from tests.support.makers import noise, python, random_net
from tests.support.threads import same_bits_in_threads

needs_triton = pytest.mark.skipif(bool(machine.no_triton()), reason=str(machine.no_triton()))
# One network of each kind with two blocks: the interpreter takes a second for each.
NETWORKS = {
    "espan": lambda: random_net(channels=32, blocks=1, last_convs=2),
    "span": lambda: random_net(SPAN, channels=28, blocks=2),
    "spanf": lambda: random_net(SPANF, channels=32, blocks=2),
}


@needs_triton
@pytest.mark.parametrize("name", NETWORKS)
def test_triton_gives_the_image_of_eager(name):
    net, image = NETWORKS[name](), noise(20, 24, 3)
    eager, triton = (
        Upscaler(net, device=DEVICE, dtype="fp32", backend=backend)(image)
        for backend in ("eager", "triton")
    )
    # Sums in another order: a value halfway between two levels may be rounded the other way.
    difference = np.abs(eager.astype(int) - triton.astype(int))
    assert difference.max() <= 1 and difference.mean() < 1e-3


@needs_triton
def test_triton_in_tiles_gives_the_whole_image():
    net, image = NETWORKS["espan"](), noise(20, 24, 3, dtype=np.float32)
    whole, tiled = (
        Upscaler(net, device=DEVICE, dtype="fp32", backend="triton", tile=tile)(image)
        for tile in (None, (20, 12))
    )
    np.testing.assert_allclose(tiled, whole, atol=2e-6)


def test_a_backend_that_is_not_there_is_refused_with_its_reason():
    with pytest.raises(DeviceError, match=r"backend 'cuda': .* refuses: ."):
        Upscaler(random_net(), device="cpu", backend="cuda")


@pytest.fixture(params=["openvino", "onnx"])
def program(request) -> str:
    """A backend of another project, if installed."""
    for package in {"openvino": ["openvino"], "onnx": ["onnxruntime", "onnxscript"]}[request.param]:
        pytest.importorskip(package)
    return request.param


def upscalers(net, program: str, dtype: str = "fp32", tile="auto") -> list[Upscaler]:
    return [
        Upscaler(net, device="cpu", dtype=dtype, backend=backend, tile=tile)
        for backend in ("eager", program)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_runtimes_give_the_image_of_eager(name, program):
    """At any size, with borders, in sequence; also for grey and 16 bits."""
    eager, other = upscalers(NETWORKS[name](), program)
    for shape in ((20, 24, 3), (1, 1, 3), (37, 5, 3), (7, 41)):
        image = noise(*shape, dtype=np.float32)
        np.testing.assert_allclose(other(image), eager(image), atol=2e-6, err_msg=str(shape))
    image = noise(9, 14, 3, dtype=np.uint16)
    assert np.abs(other(image).astype(int) - eager(image)).max() <= 1


def test_runtimes_support_batches_and_tiles(program):
    net = NETWORKS["espan"]()
    eager, other = upscalers(net, program, tile=(20, 12))
    batch = torch.rand(3, 3, 33, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other(batch), eager(batch), atol=2e-6, rtol=0)
    x = batch.to(memory_format=torch.channels_last)
    y = backend_of(copy_to(net, torch.device("cpu"), torch.float32), program)(x)
    torch.testing.assert_close(y, net(x).detach(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_runtimes_keep_nan_and_infinity(bad, program):
    """The runner detects overflowed tiles by them."""
    run = backend_of(random_net(), program)
    x = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    assert run(x).isfinite().all()
    x[0, 0, 15, 15] = bad
    assert not run(x).isfinite().all()


def test_threads_share_another_program(program):
    up = Upscaler(NETWORKS["espan"](), device="cpu", dtype="fp32", backend=program)
    same_bits_in_threads(up, [noise(20 + i, 31, 3, seed=i) for i in range(4)], runs=5)


def test_a_tensor_that_wants_a_gradient_goes_in(program):
    up = Upscaler(NETWORKS["espan"](), device="cpu", dtype="fp32", backend=program)
    image = torch.rand(3, 5, 6, requires_grad=True)
    with torch.no_grad():
        assert not up(image).requires_grad


def test_openvino_computes_in_bf16_where_the_processor_has_it():
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(DeviceError, match=r"'openvino': computes in .*FP32.* not in BF16"):
            Upscaler(random_net(), device="cpu", dtype="bf16", backend="openvino")
        return
    eager, other = upscalers(random_net(channels=32, blocks=2), "openvino", "bf16")
    image = noise(24, 40, 3)
    difference = np.abs(other(image).astype(int) - eager(image))
    assert difference.max() <= 8 and difference.mean() < 0.7
    assert "OpenVINO on the CPU in torch.bfloat16" in other.explain()


def test_signals_arrive_when_openvino_has_come_and_gone():
    pytest.importorskip("openvino")
    code = """
import gc, signal
from espan import Upscaler
first = Upscaler("espan-x2", device="cpu", backend="openvino")
second = Upscaler("espan-x2", device="cpu", backend="openvino", dtype="fp32")
del first
gc.collect()
del second
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_what_openvino_lacks_is_refused(monkeypatch):
    openvino = pytest.importorskip("openvino")

    class Core:
        def get_property(self, *_names):
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", Core)
    monkeypatch.setattr(backend_openvino, "_core", backend_openvino._core.__wrapped__)
    with pytest.raises(DeviceError, match="'openvino': computes in FP32 here, not in BF16"):
        Upscaler(random_net(), device="cpu", dtype="bf16", backend="openvino")


def test_onnx_runtime_has_float32_alone():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert Upscaler(random_net(), device="cpu", backend="onnx").dtype == torch.float32
    with pytest.raises(DeviceError, match=r"'onnx': computes in float32, not in torch\.bfloat16"):
        Upscaler(random_net(), device="cpu", dtype="bf16", backend="onnx")


def test_runtimes_need_the_cpu(program):
    net = random_net().to("meta")
    with pytest.raises(DeviceError, match=f"'{program}': runs on the CPU, the device is meta"):
        backend_of(net, program)


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [("openvino", "openvino", "openvino"), ("onnx", "onnxruntime", "export")],
)
def test_a_program_that_is_not_installed_is_named_with_its_extra(
    backend, package, extra, monkeypatch, capsys, weights, tmp_path
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(backend_openvino, "_core", backend_openvino._core.__wrapped__)
    says = rf"backend '{backend}' needs {package}: pip install 'espan\[{extra}\]'"
    with pytest.raises(DeviceError, match=says):
        Upscaler(random_net(), device="cpu", backend=backend)
    command = ["upscale", str(tmp_path), "-n", weights, "--device", "cpu", "--backend", backend]
    assert main(command) == 2
    assert f"pip install 'espan[{extra}]'" in capsys.readouterr().err


def test_every_name_has_a_backend():
    assert tuple(BY_NAME) == BACKENDS == options.BACKENDS


def test_kernels_without_a_public_name_can_be_named(monkeypatch):
    """By ESPAN_IMPL, which is the name of any implementation of an op."""
    monkeypatch.setattr("espan.backends.select.DEFAULT_IMPL", "cuda_wgmma")
    with pytest.raises(DeviceError, match="backend 'cuda_wgmma': "):
        backend_of(copy_to(random_net(), torch.device("cpu"), torch.float16), "auto")


class Broken(Eager):
    """Replaces `Plan`: kernels that fail or give a wrong result."""

    def __init__(self, net, impl):
        super().__init__(net)
        self.impl = impl

    def __call__(self, x):
        if self.impl == "triton":
            raise RuntimeError("PTX was compiled with an unsupported toolchain")
        return self.net(x) + 0.5

    def bind(self, pixels):
        return lambda: self.checked(pixels)

    def checked(self, pixels):
        return pixels.repeat_interleave(4, 2).repeat_interleave(4, 3), torch.tensor(True)


class BrokenIn8Bits(Broken):
    """Correct in its own dtype, wrong in uint8."""

    def __call__(self, x):
        return self.net(x)


@pytest.mark.parametrize("plan", [Broken, BrokenIn8Bits])
def test_kernels_with_wrong_results_are_skipped(plan, monkeypatch, caplog):
    net = random_net()
    assert isinstance(fastest_proven(net), Plan)
    monkeypatch.setattr("espan.backends.select.Plan", plan)
    kept = fastest_proven(net)
    assert type(kept) is Eager and kept.net is net
    said = [record.getMessage() for record in caplog.records]
    assert "not using the fastest kernels: off by 0." in said[0]
    if plan is Broken:
        assert "not using the triton kernels: PTX was compiled" in said[1]
