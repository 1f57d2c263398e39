"""The forms in which a network runs, as an upscaler picks them, without what reads pictures: a
strange machine may lack Pillow."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from espan.cpu import CpuNetwork
from espan.model import Network
from espan.plan import Plan


def copy_to(net: Network, device: torch.device, dtype: torch.dtype) -> Network:
    net = copy.deepcopy(net).eval().requires_grad_(False)
    return net.to(device, dtype, memory_format=torch.channels_last)


def form(net: Network, backend: str) -> Callable[[Tensor], Tensor]:
    """ValueError for kernels that refuse."""
    on_cpu = next(net.parameters()).device.type == "cpu"
    if backend == "compile":
        return torch.compile(net, options={"freezing": True})
    if backend == "auto" and on_cpu:
        return CpuNetwork(net)
    return Plan(net, None if backend == "auto" else backend)
