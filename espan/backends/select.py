"""The backends by their names, and the choice among them.

Images are not known here and Pillow is not needed: benchmarks run backends on machines without it.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch

from espan.backends.base import Backend
from espan.backends.bfloat16 import Bfloat16Network
from espan.backends.bfloat16 import refusal as bfloat16_refusal
from espan.backends.cpu import CpuNetwork
from espan.backends.eager import Compiled, Eager
from espan.backends.kernels import Plan
from espan.backends.onnx import OnnxRuntime
from espan.backends.openvino import OpenVino
from espan.errors import DeviceError
from espan.images.pixels import enter
from espan.networks.deploy import allows_tf32
from espan.networks.network import Network
from espan.options import RUNTIMES, WITH_TF32
from espan.system import memory
from espan.system.devices import one_thread
from espan_kernels.op import DEFAULT_IMPL

log = logging.getLogger("espan")

Make: TypeAlias = Callable[[Network], Backend]


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
    return BY_NAME[name](net)


def _fastest(net: Network) -> Backend:
    device = next(net.parameters()).device.type
    if allows_tf32(net) or device not in ("cpu", "cuda"):
        return Eager(net)
    if device == "cuda":
        return fastest_proven(net)
    native: dict[str, Make] = {} if bfloat16_refusal(net) else {"CPU": Bfloat16Network}
    with one_thread():  # constructing a network must not spawn OpenMP workers
        return _first_proven(net, native, CpuNetwork)


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
    """The fastest of our kernels that give the network's own image here, on a small sample.

    net: of `copy_to`; in float32 the kernels are held against float32, not against TF32. A kernel
    may fail on a GPU, driver or compiler it has not met: it is left aside with a warning.
    """
    return _first_proven(net, {"fastest": Plan, "triton": partial(Plan, impl="triton")}, Eager)


@torch.inference_mode()
def _first_proven(net: Network, candidates: dict[str, Make], otherwise: Make) -> Backend:
    some = next(net.parameters())
    if not candidates:
        return otherwise(net)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (1, 3, 24, 40), dtype=torch.uint8, generator=generator)
    pixels = pixels.to(some.device)
    x = enter(pixels, some.device, some.dtype)
    want = net(x).float()
    largest = want.abs().max().item()
    # Half precision rounds differently in every order of summing; a wrong kernel is far off.
    allowed = (1e-3 if some.dtype == torch.float32 else 5e-2) * largest
    for name, make in candidates.items():
        try:
            backend = make(net)
            error = (backend(x).float() - want).abs().max().item()
            image = backend.bind(pixels)()[0].float() / 255
            rounded = (image - want.clamp(0, 1)).abs().max().item() - 0.5 / 255
        except Exception as failure:
            if memory.ran_out(failure):
                raise
            reason = " ".join(str(failure).split())[:200]
        else:
            if max(error, rounded) <= allowed:
                return backend
            reason = f"off by {max(error, rounded):.3g} of {largest:.3g}"
        log.warning("the %s kernels are left aside: %s", name, reason)
    return otherwise(net)


BY_NAME: dict[str, Make] = {
    "auto": _fastest,
    "cuda": partial(_kernels, "cuda"),
    "triton": partial(_kernels, "triton"),
    "eager": Eager,
    "compile": Compiled,
    "openvino": OpenVino,
    "onnx": OnnxRuntime,
}
