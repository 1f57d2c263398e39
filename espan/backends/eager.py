"""Backends that run PyTorch's own operators, directly or through `torch.compile`."""

import os
import shutil

import torch
from torch import Tensor

from espan.backends.base import Work, bound
from espan.errors import DeviceError
from espan.networks.deploy import allows_tf32
from espan.networks.network import Network
from espan.system import memory


class Eager:
    """A backend: the folded `net` itself, on any device."""

    by = "PyTorch's own operators"

    def __init__(self, net: Network):
        self.net, self.dtype = net, next(net.parameters()).dtype

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def memory(self, n: int, height: int, width: int) -> int:
        return memory.for_pixels(n * height * width, self.net.config["channels"], self.dtype)

    def explain(self) -> str:
        tf32 = " with TF32" * allows_tf32(self.net)
        return f"{type(self.net).__name__} by {self.by} in {self.dtype}{tf32}"

    def bind(self, pixels: Tensor) -> Work:
        return bound(self, self.dtype, pixels)


class Fetched(Eager):
    """As `Eager`, its results on the host: for devices that lack operators for pixels."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x).cpu()


class Compiled(Eager):
    """`Eager` through `torch.compile`. Raises DeviceError on a CPU without a C++ compiler."""

    by = "torch.compile"

    def __init__(self, net: Network):
        super().__init__(net)
        compiler = os.environ.get("CXX", "g++")
        if next(net.parameters()).device.type == "cpu" and shutil.which(compiler) is None:
            raise DeviceError(f"backend 'compile': needs a C++ compiler, {compiler!r} not found")
        # Freezing packs weights once and fuses SiLU into convolutions.
        self._run = torch.compile(net, options={"freezing": True})

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._run(x)
        return y
