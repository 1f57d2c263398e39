"""Counts the transfers of a call between host and device, on the make-believe device.

Pinned memory is simulated too: ordinary memory, recognised by its addresses.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from espan import Upscaler
from espan.execution.cuda_graph import StreamSlot
from espan.system import pinned
from tests.support.make_believe_device import DeviceTensor, make_believe
from tests.support.slots import FakeSlot, with_slots

_aten = torch.ops.aten


class Pages:
    """Simulates PyTorch's cache of pinned memory, which reuses freed blocks of the same size.

    `most`: bytes that can be pinned in total; `locked`: bytes that are, used or cached.
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


class DeviceSlot(FakeSlot):
    """A slot of the make-believe device, with the copy rules of a real one."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    holds, writes, write = StreamSlot.holds, StreamSlot.writes, StreamSlot.write

    def current(self):
        return nullcontext()

    def capture(self, work):
        """Replays run the work again without copies."""
        self.log.append("capture")
        results = [*work()]

        def replay() -> None:
            self.log.append("replay")
            results[:] = work()

        return replay, results

    def pinned(self, like):
        return torch.full_like(like, 77, device="cpu")


class Transfers(TorchDispatchMode):
    """Counts copies of images, by direction, their bytes, and synchronisations.

    moved: {"host to device": [bytes, ...], ...} of tensors with more than one element; waits: the
    number of values read from the device.
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
    """Yields (an upscaler on the make-believe device, its slots, the pages)."""
    pages = pages or Pages()
    with make_believe() as device, mock.patch.object(pinned, "locked", pages.has):
        up = Upscaler(net, device=device, **options)
        slots = with_slots(up, DeviceSlot(device), DeviceSlot(device))
        up._runner.empty = pinned.Results(budget, pages.lock, pages.unlock_unused)
        yield up, slots, pages
