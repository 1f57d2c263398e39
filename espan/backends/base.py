"""The `Backend` protocol: a folded network that computes images."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from espan.images.pixels import from_network_output_on_device, to_network_input

# Computes on tensors at fixed addresses; returns (pixels of the result, a tensor of one bool:
# whether to trust them). Never synchronises, so a CUDA graph can capture it.
Work: TypeAlias = Callable[[], tuple[Tensor, Tensor]]


class Backend(Protocol):
    """`backend(x)` equals `net(x)`: x (N, 3, H, W) -> (N, 3, scale*H, scale*W), without a gradient.

    x: on the network's device, in `dtype`. Thread-safe.
    """

    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor: ...

    def memory(self, n: int, height: int, width: int) -> int:
        """Most bytes that a call allocates for n images (3, H, W), without x itself."""

    def explain(self) -> str:
        """A description of the computation, one line or one per step."""

    def bind(self, pixels: Tensor) -> Work:
        """The work on pixels (N, C, H, W), C = 1 or 3, at a fixed address on the network's device.

        Allocates the buffers that all calls share.
        """


def bound(run: Callable[[Tensor], Tensor], dtype: torch.dtype, pixels: Tensor) -> Work:
    """Implements `bind` for a backend that computes `run` in `dtype`."""

    def work() -> tuple[Tensor, Tensor]:
        y = run(to_network_input(pixels, pixels.device, dtype))
        return from_network_output_on_device(y, pixels.size(1), pixels.dtype)

    return work
