"""`python -m tests.verification.host_calls`: the overhead of a call besides the network.

Processor time of one thread in microseconds per call, the minimum of several rounds: 16x16 pixels
through an `Upscaler` with a network that does nothing, on an emulated device.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from espan import Upscaler, shortcut, upscale
from tests.support.slots import with_slots

ROUNDS, CALLS = 30, 100


def upscaler() -> Upscaler:
    """An upscaler with a network that returns preallocated zeros."""
    up = Upscaler(device="cpu", dtype="fp32", backend="eager")
    with_slots(up)

    def bind(_dtype: torch.dtype, pixels: torch.Tensor):
        n, channels, height, width = pixels.shape
        result = torch.zeros(n, channels, 4 * height, 4 * width, dtype=pixels.dtype)
        trusted = torch.ones((), dtype=torch.bool)
        return lambda: (result, trusted)

    up._runner._bind = bind
    return up


def contenders(up: Upscaler) -> dict[str, tuple[Callable[[], object], int]]:
    """{kind of input: (call, number of images)}."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    tensor = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image, batch = Image.fromarray(pixels), tensor[None].repeat(4, 1, 1, 1)
    return {
        "numpy": (lambda: up(pixels), 1),
        "PIL": (lambda: up(image), 1),
        "tensor (C, H, W)": (lambda: up(tensor), 1),
        "batch of 4": (lambda: up(batch), 1),
        "list of 8, each": (lambda: up([pixels] * 8), 8),
        "`espan.upscale`": (lambda: upscale(pixels), 1),
    }


def microseconds(call: Callable[[], object], rounds: int, calls: int) -> float:
    call()
    least = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(calls):
            call()
        least = min(least, time.process_time() - began)
    return least / calls * 1e6


def measured(rounds: int = ROUNDS, calls: int = CALLS) -> dict[str, float]:
    """{kind of input: microseconds per image}."""
    torch.set_num_threads(1)
    up, held = upscaler(), shortcut._cached
    try:
        shortcut._cached = lambda *args: up
        found = contenders(up).items()
        return {name: microseconds(call, rounds, calls) / n for name, (call, n) in found}
    finally:
        shortcut._cached = held


def main() -> None:
    for name, cost in measured().items():
        print(f"{name:20} {cost:6.0f} us")


if __name__ == "__main__":
    main()
