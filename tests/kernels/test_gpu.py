"""The suite for a machine with a GPU: `python -m pytest tests/kernels/test_gpu.py`.

Needs torch, triton, numpy and pytest, and espan's dependencies for the upscaler. Tests every kernel
of every op: float64, guard bands, reruns, streams, threads.
"""

import pytest
import torch

from espan.backends.kernels import Plan
from espan.backends.select import fastest_proven
from espan.networks.deploy import copy_to
from espan_kernels import OPS
from tests.support import gpu_checks
from tests.support.contract import DTYPES
from tests.support.makers import random_net

pytestmark = pytest.mark.gpu

KERNELS = [
    pytest.param(op, kernel.name, id=f"{op.name}-{kernel.name}")
    for op in OPS.values()
    for kernel in op.kernels
    if kernel.run is not None
]
each_kernel = pytest.mark.parametrize(("op", "impl"), KERNELS)


@each_kernel
def test_kernel_runs_here(op, impl):
    """A kernel that refuses everything would be skipped below without being tested."""
    reasons = [gpu_checks.refusals(op, impl, dtype, "cuda") for dtype in DTYPES]
    assert not all(reasons), reasons


@each_kernel
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("check", gpu_checks.CHECKS, ids=lambda f: f.__name__)
def test_kernel(check, dtype, op, impl):
    if reasons := gpu_checks.refusals(op, impl, dtype, "cuda"):
        pytest.skip("; ".join(sorted(reasons)))
    check(op, impl, dtype, "cuda")


@pytest.mark.parametrize("impl", ["cuda", "triton"])
@pytest.mark.parametrize(("shape", "block"), gpu_checks.DCT_SHAPES, ids=str)
def test_dct_gradient(shape, block, impl):
    gpu_checks.check_dct_gradient(shape, block, impl, "cuda")


@pytest.fixture(scope="module")
def upscalers():
    """(`Upscaler` in float16, plain PyTorch in float32) of a network with large biases."""
    try:
        from espan import Upscaler
    except ImportError as error:
        pytest.skip(f"espan.Upscaler cannot be imported: {error}")
    net = random_net(channels=32, blocks=3, last_convs=2)
    return (
        Upscaler(net, device="cuda", backend="cuda", dtype="fp16"),
        Upscaler(net, device="cuda", backend="eager", dtype="fp32"),
    )


@torch.no_grad()
def test_float32_does_not_use_tf32(monkeypatch, caplog):
    """With TF32 allowed: compares the network with float64 on the CPU; the kernels stay in use."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    net = random_net(channels=32, blocks=5, last_convs=2)
    x = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    want = copy_to(net, torch.device("cpu"), torch.float64)(x.double()).float()
    copy = copy_to(net, torch.device("cuda"), torch.float32)
    for run in (copy, fastest_proven(copy)):
        torch.testing.assert_close(run(x.cuda()).cpu(), want, rtol=0, atol=1e-5)
    assert isinstance(run, Plan) and not caplog.records
    if torch.cuda.get_device_capability() >= (8, 0):
        tf32 = copy_to(net, torch.device("cuda"), torch.float32, tf32=True)
        assert (tf32(x.cuda()).cpu() - want).abs().max() > 2e-5


def test_engine_agrees(upscalers):
    gpu_checks.check_upscaler_agrees(*upscalers)


def test_engine_reruns(upscalers):
    gpu_checks.check_upscaler_reruns(upscalers[0])


def test_engine_batch(upscalers):
    gpu_checks.check_upscaler_batch(upscalers[0])


def test_engine_stream(upscalers):
    gpu_checks.check_upscaler_stream(upscalers[0], "cuda")


def test_engine_threads(upscalers):
    gpu_checks.check_upscaler_threads(upscalers[0])
