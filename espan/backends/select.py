"""The backends by their names, and the choice among them.

Images are not known here and Pillow is not needed: benchmarks run backends on machines without it.
"""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from espan.backends.base import Backend
from espan.backends.cpu import CpuNetwork
from espan.backends.eager import Compiled, Eager, Fetched
from espan.backends.kernels import Plan
from espan.backends.onnx import OnnxRuntime
from espan.backends.openvino import OpenVino
from espan.errors import DeviceError
from espan.images.pixels import enter
from espan.networks.deploy import allows_tf32, copy_to
from espan.networks.network import Network
from espan.options import RUNTIMES, WITH_TF32
from espan.system import memory
from espan_kernels.op import DEFAULT_IMPL

log = logging.getLogger("espan")

# Devices for which there are PyTorch's operators alone: Apple's GPUs and Intel's.
EAGER_ONLY = ("mps", "xpu")
# How far a result may be off, of its largest value: half precision rounds differently in every
# order of summing; a wrong kernel is far off.
_EXACT, _HALF = 1e-3, 5e-2


def backend_of(net: Network, name: str) -> Backend:
    """The backend of that name for `net`, of `copy_to`; "auto" is the fastest on its device.

    A backend asked for by name that refuses to run here is a DeviceError with its reason; so is
    "cuda" where no step has a CUDA kernel, and a warning for each step that goes by the next in
    line. Where the network allows TF32, "auto" is "eager", and kernels, which multiply float32 as
    such, are refused.
    """
    device = next(net.parameters()).device
    if name == "auto" and DEFAULT_IMPL:
        name = DEFAULT_IMPL  # asked for by the environment variable ESPAN_IMPL
    if allows_tf32(net) and name not in WITH_TF32:
        raise DeviceError(f"backend {name!r}: has no TF32, which is for {', '.join(WITH_TF32)}")
    if name in RUNTIMES and device.type != "cpu":
        raise DeviceError(f"backend {name!r}: runs on the CPU, the device is {device}")
    if device.type in EAGER_ONLY and name not in ("auto", "eager"):
        raise DeviceError(f"backend {name!r}: does not run on {device}, 'eager' does")
    return BY_NAME[name](net)


def _eager(net: Network) -> Backend:
    return proven(net) if next(net.parameters()).device.type in EAGER_ONLY else Eager(net)


def _fastest(net: Network) -> Backend:
    device = next(net.parameters()).device.type
    if device == "cuda" and not allows_tf32(net):
        return fastest_proven(net)
    return CpuNetwork(net) if device == "cpu" and not allows_tf32(net) else _eager(net)


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


@torch.inference_mode()
def fastest_proven(net: Network) -> Backend:
    """The fastest backend of `net` that gives the network's own picture here, on a small sample.

    net: of `copy_to`; in float32 the kernels are held against float32, not against TF32. A kernel
    may fail on a GPU, driver or compiler it has not met: it is left aside with a warning.
    """
    some = next(net.parameters())
    pixels = _sample().to(some.device)
    x = enter(pixels, some.device, some.dtype)
    want = net(x).float()
    largest = want.abs().max().item()
    allowed = (_EXACT if some.dtype == torch.float32 else _HALF) * largest
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
    return Eager(net)


@torch.no_grad()
def proven(net: Network) -> Backend:
    """PyTorch's operators on the device of `net`, which is not tested on such devices.

    DeviceError where they fail on a small sample, or differ from the CPU's float32.
    """
    some = next(net.parameters())
    host, backend = torch.device("cpu"), Fetched(net)
    want = copy_to(net, host, torch.float32)(enter(_sample(), host, torch.float32))
    try:
        y = backend(enter(_sample(), some.device, some.dtype)).float()
    except Exception as failure:
        if memory.ran_out(failure):
            raise
        problem = " ".join(str(failure).split())[:200] or type(failure).__name__
    else:
        error, largest = (y - want).abs().max().item(), want.abs().max().item()
        # NaN is not less.
        if error <= (_EXACT if some.dtype == torch.float32 else _HALF) * largest:
            return backend
        problem = f"its result is off by {error:.3g} of {largest:.3g}"
    raise DeviceError(
        f"device '{some.device}': a sample in {some.dtype} failed: {problem}; try another dtype, "
        "or device cpu"
    )


def _sample() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (1, 3, 24, 40), dtype=torch.uint8, generator=generator)


BY_NAME: dict[str, Callable[[Network], Backend]] = {
    "auto": _fastest,
    "cuda": partial(_kernels, "cuda"),
    "triton": partial(_kernels, "triton"),
    "eager": _eager,
    "compile": Compiled,
    "openvino": OpenVino,
    "onnx": OnnxRuntime,
}
