"""The backends by name, and the choice of the fastest.

Does not import Pillow: benchmarks run backends on machines without it.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from espan.backends.base import Backend
from espan.backends.cpu import CpuNetwork
from espan.backends.cpu_kernels import CpuKernels
from espan.backends.cpu_kernels import refusal as cpu_kernels_refusal
from espan.backends.eager import Compiled, Eager, Fetched
from espan.backends.kernels import Plan
from espan.backends.onnx import OnnxRuntime
from espan.backends.openvino import OpenVino
from espan.errors import DeviceError
from espan.images.pixels import from_network_output, to_network_input
from espan.networks.deploy import allows_tf32, copy_to
from espan.networks.network import Network
from espan.options import RUNTIMES, WITH_TF32
from espan.system import memory
from espan.system.devices import one_thread
from espan_kernels.op import DEFAULT_IMPL

log = logging.getLogger("espan")

Make: TypeAlias = Callable[[Network], Backend]

# Devices on which only PyTorch's operators run: Apple's GPUs and Intel's.
EAGER_ONLY = ("mps", "xpu")
# Allowed errors, as shares of the largest value: half precision rounds differently for each order
# of summation; a wrong kernel is far off.
_EXACT, _HALF = 1e-3, 5e-2


def backend_of(net: Network, name: str) -> Backend:
    """The backend called `name` for `net`, a result of `copy_to`; "auto" is the fastest one.

    Raises DeviceError with the reason if a named backend cannot run here, or if no step has a CUDA
    kernel for "cuda"; logs a warning for each step that falls back. If the network allows TF32,
    "auto" is "eager", and kernels raise, because they never round float32 to TF32.
    """
    device = next(net.parameters()).device
    if name == "auto" and DEFAULT_IMPL:
        name = DEFAULT_IMPL  # from the environment variable ESPAN_IMPL
    if allows_tf32(net) and name not in WITH_TF32:
        raise DeviceError(
            f"backend {name!r}: does not support TF32, only {', '.join(WITH_TF32)} do"
        )
    if name in RUNTIMES and device.type != "cpu":
        raise DeviceError(f"backend {name!r}: runs on the CPU, the device is {device}")
    if device.type in EAGER_ONLY and name not in ("auto", "eager"):
        raise DeviceError(f"backend {name!r}: does not run on {device}, 'eager' does")
    make = BY_NAME.get(name) or partial(_kernels, name)  # "cuda_wgmma" has no public name
    return make(net)


def _eager(net: Network) -> Backend:
    return proven(net) if next(net.parameters()).device.type in EAGER_ONLY else Eager(net)


def _fastest(net: Network) -> Backend:
    device = next(net.parameters()).device.type
    if allows_tf32(net) or device not in ("cpu", "cuda"):
        return _eager(net)
    if device == "cuda":
        return fastest_proven(net)
    if cpu_kernels_refusal(net):
        return CpuNetwork(net)
    with one_thread():  # the sample must not spawn OpenMP workers
        return _first_proven(net, {"CPU": CpuKernels}, CpuNetwork)


def _kernels(impl: str, net: Network) -> Plan:
    try:
        plan = Plan(net, impl)
        plan(next(net.parameters()).new_zeros(1, 3, 8, 8))
    except ValueError as error:
        raise DeviceError(f"backend {impl!r}: {error}") from error
    if impl == "cuda":
        for reason in plan.refusals(impl):
            log.warning("no CUDA kernel for %s", reason)
    return plan


def fastest_proven(net: Network) -> Backend:
    """The fastest backend that reproduces the network's result in float32 on a small sample.

    net: from `copy_to`, without TF32. Kernels that fail or differ on this GPU, driver or compiler
    are skipped with a warning.
    """
    return _first_proven(
        net, {"fastest": partial(Plan, impl=None), "triton": partial(Plan, impl="triton")}, Eager
    )


@torch.inference_mode()
def _first_proven(net: Network, candidates: dict[str, Make], otherwise: Make) -> Backend:
    some = next(net.parameters())
    pixels = _sample().to(some.device)
    x = to_network_input(pixels, some.device, some.dtype)
    # In half precision the error of PyTorch's own operators may be several times that of a kernel.
    exact = net if some.dtype == torch.float32 else copy_to(net, some.device, torch.float32)
    want = exact(x.float())
    largest = want.abs().max().item()
    allowed = _allowed(some.dtype) * largest
    for name, make in candidates.items():
        try:
            backend = make(net)
            y = backend(x)
            error = (y.float() - want).abs().max().item()
            image = _image(backend, pixels, y).float() / 255
            rounded = (image - want.clamp(0, 1)).abs().max().item() - 0.5 / 255
        except Exception as failure:
            if memory.ran_out(failure):
                raise
            reason = " ".join(str(failure).split())[:200]
        else:
            if max(error, rounded) <= allowed:
                return backend
            reason = f"off by {max(error, rounded):.3g} of {largest:.3g}"
        log.warning("not using the %s kernels: %s", name, reason)
    return otherwise(net)


@torch.no_grad()
def proven(net: Network) -> Backend:
    """PyTorch's operators on the device of `net`, a kind of device on which espan is not tested.

    Raises DeviceError if they fail on a small sample, or differ from float32 on the CPU.
    """
    some = next(net.parameters())
    host, backend = torch.device("cpu"), Fetched(net)
    want = copy_to(net, host, torch.float32)(to_network_input(_sample(), host, torch.float32))
    try:
        y = backend(to_network_input(_sample(), some.device, some.dtype)).float()
    except Exception as failure:
        if memory.ran_out(failure):
            raise
        problem = " ".join(str(failure).split())[:200] or type(failure).__name__
    else:
        error, largest = (y - want).abs().max().item(), want.abs().max().item()
        # A comparison with NaN is false.
        if error <= _allowed(some.dtype) * largest:
            return backend
        problem = f"its result is off by {error:.3g} of {largest:.3g}"
    raise DeviceError(
        f"device '{some.device}': a sample in {some.dtype} failed: {problem}; try another dtype, "
        "or device cpu"
    )


def _image(backend: Backend, pixels: Tensor, y: Tensor) -> Tensor:
    """The backend's image of `pixels`, and of its result y, as a tile gets it on this device."""
    if not y.is_cpu or isinstance(backend, Plan):
        return backend.bind(pixels)()[0]
    image = torch.empty_like(y, dtype=torch.uint8)
    from_network_output(y.clone(), image)
    return image


def _allowed(dtype: torch.dtype) -> float:
    return _EXACT if dtype == torch.float32 else _HALF


def _sample() -> Tensor:
    """A small image, smooth with little noise. Pure noise drives published networks to results a
    hundred times as large as an image, where half precision has no digit right.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 4, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (24, 40), mode="bilinear")
    noisy = smooth + 0.02 * torch.randn(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).to(torch.uint8)


BY_NAME: dict[str, Make] = {
    "auto": _fastest,
    "cuda": partial(_kernels, "cuda"),
    "triton": partial(_kernels, "triton"),
    "eager": _eager,
    "compile": Compiled,
    "openvino": OpenVino,
    "onnx": OnnxRuntime,
}
