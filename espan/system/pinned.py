"""Pinned (page-locked) host memory for asynchronous copies, from PyTorch's caching allocator."""

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

# Pinned memory for results that callers keep: at most 1/SHARE of host memory, and MOST bytes. More
# gains nothing: pinning a page the first time takes longer than touching an ordinary one.
SHARE, MOST = 8, 2 << 30

# Bytes from which numpy requests huge pages, which are faster to touch the first time.
LARGE = 1 << 22

Empty = Callable[[Sequence[int], torch.dtype], Tensor]


def pageable(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uninitialised pageable memory for a result; large ones by numpy, which uses huge pages."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return torch.empty(shape, dtype=dtype)
    return _shaped(np.empty(size, np.uint8), shape, dtype)


def _shaped(memory: np.ndarray, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(memory).view(dtype).view(tuple(shape))


def lock(size: int) -> Tensor:
    """Allocates pinned memory from PyTorch's cache; raises RuntimeError on failure."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def locked(tensor: Tensor) -> bool:
    """Whether the tensor is in pinned memory, ours or a caller's."""
    return tensor.is_pinned()


def unlock_unused() -> None:
    """Releases the unused pinned memory in PyTorch's cache."""
    for name in ("_accelerator_emptyHostCache", "_host_emptyCache"):
        if hasattr(torch._C, name):
            getattr(torch._C, name)()
            return


class Results:
    """Allocates results that a GPU writes: `results(shape, dtype)` is an uninitialised tensor.

    Uses pinned memory while all of it, used or cached, fits into `budget` bytes, else pageable
    memory. If pinning fails, logs a warning and uses pageable memory from then on. A block returns
    to the cache when the last tensor or array that shares it is freed. Thread-safe.
    """

    def __init__(
        self,
        budget: int,
        lock: Callable[[int], Tensor] = lock,
        unlock_unused: Callable[[], None] = unlock_unused,
    ):
        self.budget, self._lock, self._unlock_unused = budget, lock, unlock_unused
        # {block size: count}: blocks in use, and blocks in use or cached.
        self._held: Counter[int] = Counter()
        self._locked: Counter[int] = Counter()
        # Reentrant: a result may be collected, and call `_give_back`, while this thread holds it.
        self._changing = threading.RLock()

    def __call__(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        block = 1 << max(0, size - 1).bit_length()  # rounded up like in PyTorch's cache
        if size == 0 or not self._take(block):
            return pageable(shape, dtype)
        try:
            owner = self._lock(block).numpy()
        except (RuntimeError, MemoryError) as error:
            with self._changing:
                self._held[block] -= 1
                self._locked[block] -= 1
                self.budget = 0
            _warn(" ".join(str(error).split())[:200])
            return pageable(shape, dtype)
        # All arrays and tensors that share the memory keep `owner` alive.
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


@functools.cache  # once per reason
def _warn(reason: str) -> None:
    log.warning("no pinned host memory, copies to and from the GPU are slower: %s", reason)


# Shared by all upscalers of this process.
results = Results(min(MOST, (memory.total() or 0) // SHARE))


def staging(like: Tensor) -> Tensor:
    """Host memory with the layout of `like`, pinned if possible."""
    try:
        return torch.empty_like(like, device="cpu", pin_memory=True)
    except (RuntimeError, MemoryError) as error:
        if memory.lost(error):
            raise
        _warn(" ".join(str(error).split())[:200])
        return torch.empty_like(like, device="cpu")
