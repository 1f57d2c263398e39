"""Host memory that a GPU copies to and from by itself: locked pages, kept by PyTorch's cache."""

import functools
import logging
import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from espan.system import memory

log = logging.getLogger("espan")

# Of all host memory, what results that callers keep may take of locked pages, which nothing else
# can have meanwhile; and at most. More of them gain nothing: to lock a page the first time takes
# longer than to touch an ordinary one.
SHARE, MOST = 8, 2 << 30

# Bytes from which on numpy asks for huge pages, which take less time to touch the first time.
LARGE = 1 << 22

Empty = Callable[[Sequence[int], torch.dtype], Tensor]


def ordinary(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory for a result, of ordinary pages. For large ones numpy asks for huge pages."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return torch.empty(shape, dtype=dtype)
    return _shaped(np.empty(size, np.uint8), shape, dtype)


def _shaped(memory: np.ndarray, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(memory).view(dtype).view(tuple(shape))


def lock(size: int) -> Tensor:
    """So many bytes in locked pages, from PyTorch's cache; RuntimeError where there are none."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def locked(tensor: Tensor) -> bool:
    """Whether it lies in locked pages, its own or a caller's."""
    return tensor.is_pinned()


def unlock_unused() -> None:
    """Gives back what PyTorch's cache has of locked pages and nobody uses."""
    for name in ("_accelerator_emptyHostCache", "_host_emptyCache"):
        if hasattr(torch._C, name):
            getattr(torch._C, name)()
            return


class Results:
    """Memory for results that a GPU writes: `results(shape, dtype)`, an uninitialised tensor.

    Locked pages as long as all of them, used or waiting in the cache, stay within `budget` bytes;
    ordinary ones beyond it, or once locking has failed, which the log says. They return when the
    last tensor or array that shares them is gone. Safe between threads.
    """

    def __init__(
        self,
        budget: int,
        lock: Callable[[int], Tensor] = lock,
        unlock_unused: Callable[[], None] = unlock_unused,
    ):
        self.budget, self._lock, self._unlock_unused = budget, lock, unlock_unused
        # Blocks by their size: those that callers have, and those with what the cache has kept.
        self._held: Counter[int] = Counter()
        self._locked: Counter[int] = Counter()
        # A result may die, and call `_give_back`, while this very thread is in here.
        self._changing = threading.RLock()

    def __call__(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        block = 1 << max(0, size - 1).bit_length()  # as the cache rounds it
        if size == 0 or not self._take(block):
            return ordinary(shape, dtype)
        try:
            owner = self._lock(block).numpy()
        except (RuntimeError, MemoryError) as error:
            with self._changing:
                self._held[block] -= 1
                self._locked[block] -= 1
                self.budget = 0
            _say(" ".join(str(error).split())[:200])
            return ordinary(shape, dtype)
        # Whatever is made of it, arrays and tensors, keeps `owner`.
        weakref.finalize(owner, self._give_back, block).atexit = False
        return _shaped(owner[:size], shape, dtype)

    def _take(self, block: int) -> bool:
        with self._changing:
            if not self.budget:
                return False
            if self._held[block] == self._locked[block]:
                if self._total() + block > self.budget and self._held != self._locked:
                    self._unlock_unused()
                    self._locked = self._held.copy()
                if self._total() + block > self.budget:
                    return False
                self._locked[block] += 1
            self._held[block] += 1
            return True

    def _give_back(self, block: int) -> None:
        with self._changing:
            self._held[block] -= 1

    def _total(self) -> int:
        return sum(size * count for size, count in self._locked.items())


@functools.cache  # once
def _say(reason: str) -> None:
    log.warning("no locked host memory, copies from and to the GPU are slower: %s", reason)


# Of all upscalers of this process.
results = Results(min(MOST, (memory.total() or 0) // SHARE))


def staging(like: Tensor) -> Tensor:
    """Host memory laid out as `like`, in locked pages where there are any."""
    try:
        return torch.empty_like(like, device="cpu", pin_memory=True)
    except (RuntimeError, MemoryError) as error:
        if memory.lost(error):
            raise
        _say(" ".join(str(error).split())[:200])
        return torch.empty_like(like, device="cpu")
