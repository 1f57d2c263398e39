"""The `Backend` protocol: a folded network that runs on images, by any means."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from espan.images.pixels import from_network_output_on_device, to_network_input

# Computes at fixed addresses: (pixels of the result, whether they can be trusted as a tensor of one
# bool). It waits for nothing, so a CUDA graph can hold it.
Work: TypeAlias = Callable[[], tuple[Tensor, Tensor]]


class Backend(Protocol):
    """`backend(x)` equals `net(x)`: x (N, 3, H, W) -> (N, 3, scale*H, scale*W), without a gradient.

    x: on the network's device, in `dtype`. Safe between threads.
    """

    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor: ...

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes that a call takes at most for n images (3, H, W), beside x itself."""

    def explain(self) -> str:
        """What computes, step by step or in a line."""

    def bind(self, pixels: Tensor) -> Work:
        """The work on pixels (N, C, H, W) that lie at one address, on the network's device.

        C is 1 or 3. Memory that the work needs from call to call is taken now.
        """


def bound(run: Callable[[Tensor], Tensor], dtype: torch.dtype, pixels: Tensor) -> Work:
    """`bind` of a backend that computes `run` in `dtype`."""

    def work() -> tuple[Tensor, Tensor]:
        y = run(to_network_input(pixels, pixels.device, dtype))
        return from_network_output_on_device(y, pixels.size(1), pixels.dtype)

    return work
