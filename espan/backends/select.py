"""The forms in which a network runs: itself, its plan on kernels, `CpuNetwork`, compiled.

It knows no pictures and needs no Pillow: benchmarks run it on machines that lack it.
"""

import logging
import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from espan.backends.cpu import CpuNetwork
from espan.backends.kernels import Plan
from espan.errors import DeviceError
from espan.images.pixels import enter
from espan.networks.deploy import convolutions
from espan.networks.models import Network
from espan.options import RUNTIMES, WITH_TF32
from espan.system import memory
from espan_kernels.op import DEFAULT_IMPL

log = logging.getLogger("espan")


def with_backend(net: Network, backend: str) -> Callable[[Tensor], Tensor]:
    """The network itself, or another form of the same function.

    "auto" is its plan on a GPU, every op of espan_kernels taking its fastest kernel, `CpuNetwork`
    on a CPU and the network elsewhere; "compile" is the network through torch.compile,
    "openvino" and "onnx" are other programs that run it. A kernel or program asked for by name
    that refuses to run here is a DeviceError with its reason; so is "cuda" where no step has one,
    and a warning for each that goes by the next in line. Where the network allows TF32, "auto" is
    the network, and kernels, which multiply float32 as such, are refused.
    """
    some = next(net.parameters())
    if backend == "auto" and DEFAULT_IMPL:
        backend = DEFAULT_IMPL  # asked for by the environment variable ESPAN_IMPL
    if any(layer.tf32 for layer in convolutions(net)):
        if backend not in WITH_TF32:
            raise DeviceError(
                f"backend {backend!r}: has no TF32, which is for {', '.join(WITH_TF32)}"
            )
        backend = "eager" if backend == "auto" else backend
    if backend == "auto" and some.device.type == "cuda":
        return fastest_proven(net)
    if backend == "auto" and some.device.type == "cpu":
        return CpuNetwork(net)
    if backend == "compile":
        return _compiled(net)
    if backend in RUNTIMES:
        return _by_runtime(net, backend)
    try:
        run = net if backend in ("auto", "eager") else Plan(net, backend)
        with torch.inference_mode():
            run(some.new_zeros(1, 3, 8, 8))
    except ValueError as error:
        raise DeviceError(f"backend {backend!r}: {error}") from error
    if backend == "cuda":
        for reason in run.refusals("cuda"):
            log.warning("no CUDA kernel for %s", reason)
    return run


def _by_runtime(net: Network, backend: str) -> Callable[[Tensor], Tensor]:
    device = next(net.parameters()).device
    if device.type != "cpu":
        raise DeviceError(f"backend {backend!r}: runs on the CPU, the device is {device}")
    from espan.backends import runtimes  # which imports what few want

    return runtimes.BY_NAME[backend](net)


def _compiled(net: Network) -> Callable[[Tensor], Tensor]:
    compiler = os.environ.get("CXX", "g++")
    if next(net.parameters()).device.type == "cpu" and shutil.which(compiler) is None:
        raise DeviceError(f"backend 'compile': needs a C++ compiler, {compiler!r} is not there")
    # Weights as constants are packed once, and convolutions take SiLU along.
    return torch.compile(net, options={"freezing": True})


@torch.inference_mode()
def fastest_proven(net: Network) -> Callable[[Tensor], Tensor]:
    """The fastest form of `net` that gives the network's own picture here, on a small sample.

    net: of `copy_to`; in float32 the kernels are held against float32, not against TF32. A kernel
    may fail on a GPU, driver or compiler it has not met: it is left aside with a warning.
    """
    some = next(net.parameters())
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (1, 3, 24, 40), dtype=torch.uint8, generator=generator)
    pixels = pixels.to(some.device)
    x = enter(pixels, some.device, some.dtype)
    want = net(x).float()
    largest = want.abs().max().item()
    # Half precision rounds differently in every order of summing; a wrong kernel is far off.
    allowed = (1e-3 if some.dtype == torch.float32 else 5e-2) * largest
    for impl in (None, "triton"):
        try:
            plan = Plan(net, impl)
            error = (plan(x).float() - want).abs().max().item()
            picture = plan.checked(pixels)[0].float() / 255
            rounded = (picture - want.clamp(0, 1)).abs().max().item() - 0.5 / 255
        except Exception as failure:
            if memory.ran_out(failure):
                raise
            reason = " ".join(str(failure).split())[:200]
        else:
            if max(error, rounded) <= allowed:
                return plan
            reason = f"off by {max(error, rounded):.3g} of {largest:.3g}"
        log.warning("the %s kernels are left aside: %s", impl or "fastest", reason)
    return net
