"""Counts transfers between host and device on the make-believe device.

Pinned memory is fake too: ordinary memory identified by its addresses.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from espan import Upscaler
from espan.execution.cuda_graph import Lane
from espan.system import pinned
from tests.support.lanes import FakeLane, with_lanes
from tests.support.make_believe_device import DeviceTensor, make_believe

_aten = torch.ops.aten


class Pages:
    """Pinned memory like PyTorch's cache: freed blocks are reused for the same size.

    `most` is the maximum number of bytes, `locked` the current number, used or cached.
    """

    def __init__(self, most: int = 1 << 40):
        self.most, self.locked = most, 0
        self._blocks: list[np.ndarray] = []
        self._free: list[np.ndarray] = []

    def lock(self, size: int) -> torch.Tensor:
        block = next((each for each in self._free if len(each) == size), None)
        if block is None:
            if self.locked + size > self.most:
                raise RuntimeError("CUDA error: out of memory\nwhile locking pages")
            self.locked += size
            block = np.empty(size, np.uint8)
            self._blocks.append(block)
        else:
            self._free = [each for each in self._free if each is not block]
        used = block.view()
        weakref.finalize(used, lambda: self._free.append(block))
        return torch.from_numpy(used)

    def unlock_unused(self) -> None:
        self.locked -= sum(map(len, self._free))
        self._free.clear()

    def has(self, tensor: torch.Tensor) -> bool:
        at = tensor.data_ptr()
        return any(0 <= at - each.ctypes.data < len(each) for each in self._blocks)


class DeviceLane(FakeLane):
    """A lane of the make-believe device, with the copy rules of a real one."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    holds, writes, write = Lane.holds, Lane.writes, Lane.write

    def current(self):
        return nullcontext()

    def capture(self, work):
        """Replays run the work without copies."""
        self.log.append("capture")
        results = [*work()]

        def replay() -> None:
            self.log.append("replay")
            results[:] = work()

        return replay, results

    def pinned(self, like):
        return torch.full_like(like, 77, device="cpu")


class Transfers(TorchDispatchMode):
    """Counts copies of images by direction, their bytes, and synchronisations.

    moved: {"host to device": [bytes, ...], ...} of tensors with more than one element; waits: the
    number of device values read on the host.
    """

    def __init__(self):
        super().__init__()
        self.moved: dict[str, list[int]] = {}
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is _aten.copy_.default and args[0].numel() > 1:
            there = ["device" if isinstance(x, DeviceTensor) else "host" for x in args[1::-1]]
            way = " to ".join(there)
            self.moved.setdefault(way, []).append(args[0].numel() * args[0].element_size())
        if func is _aten._local_scalar_dense.default and isinstance(args[0], DeviceTensor):
            self.waits += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def on_device(net, budget: int = 1 << 30, pages: Pages | None = None, **options) -> Iterator[tuple]:
    """(an upscaler on the make-believe device, its lanes, its pages); results within `budget`."""
    pages = pages or Pages()
    with make_believe() as device, mock.patch.object(pinned, "locked", pages.has):
        up = Upscaler(net, device=device, **options)
        lanes = with_lanes(up, DeviceLane(device), DeviceLane(device))
        up._runner.empty = pinned.Results(budget, pages.lock, pages.unlock_unused)
        yield up, lanes, pages
