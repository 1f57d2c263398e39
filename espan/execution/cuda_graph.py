"""CUDA graphs, captured once and then replayed, and the stream slots on which they run."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from espan.backends.base import Work
from espan.system import pinned

log = logging.getLogger("espan")

# A capture starts by synchronising the device, which is illegal during another capture.
_CAPTURING = threading.Lock()

Capture = Callable[[Work], tuple[Callable[[], Any], tuple[Tensor, Tensor]]]


class Graph:
    """`work()` on tensors at fixed addresses: called directly once, then captured and replayed.

    The first call compiles and loads kernels, which a graph cannot do. `capture(work)` returns
    (replay, the tensors that each replay fills); if it raises, the reason is logged and the work
    is always called directly.
    """

    def __init__(self, work: Work, capture: Capture):
        self._work = work
        self._capture: Capture | None = capture
        self._warm = False
        self._replay: Callable[[], Any] | None = None
        self._results: tuple[Tensor, Tensor] | None = None

    def __call__(self) -> tuple[Tensor, Tensor]:
        if self._warm and self._capture:
            try:
                self._replay, self._results = self._capture(self._work)
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                log.warning("CUDA graph capture failed, launching kernels one by one: %s", reason)
            self._capture = None
        self._warm = True
        if self._replay is None or self._results is None:
            return self._work()
        self._replay()
        return self._results


def _order(out: Tensor) -> torch.memory_format | None:
    """The memory format in which `out` (N, C, H, W) is contiguous, or None."""
    orders = (torch.channels_last, torch.contiguous_format)
    return next((one for one in orders if out.is_contiguous(memory_format=one)), None)


class StreamSlot:
    """A CUDA stream with its graph memory pool; queues copies, captures and events on it."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)
        # Has an index, which `device` may lack.
        self.device = self.stream.device
        self._pool = torch.cuda.graph_pool_handle()
        self.follow()  # copies of the weights may still be queued

    def current(self):
        """A context that queues work on this slot."""
        return torch.cuda.stream(self.stream)

    def holds(self, pixels: Tensor) -> bool:
        """Whether the pixels are on this slot's device."""
        return pixels.device == self.device

    def follow(self) -> None:
        """Makes this slot wait for the work queued so far on the caller's stream."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def mark(self) -> Callable[[], None]:
        """A function that waits for the work queued on this slot so far."""
        event = torch.cuda.Event()
        event.record(self.stream)
        return event.synchronize

    def pinned(self, like: Tensor) -> Tensor:
        """Host memory like `like`, pinned, so that copies to and from it are asynchronous."""
        return pinned.staging(like)

    def writes(self, out: Tensor) -> bool:
        """Whether this slot can fill `out` itself: it is on the device, or in contiguous pinned
        memory, which takes one transfer.
        """
        return self.holds(out) or (_order(out) is not None and pinned.locked(out))

    def write(self, y: Tensor, out: Tensor) -> None:
        """Queues the copy of y into `out`, for which `writes` is True."""
        if order := None if self.holds(out) else _order(out):
            y = y.contiguous(memory_format=order)
        out.copy_(y, non_blocking=True)

    def capture(self, work: Work) -> tuple[Callable[[], None], tuple[Tensor, Tensor]]:
        """`capture` of a `Graph`. All graphs of a slot share one memory pool for temporaries."""
        graph = torch.cuda.CUDAGraph()
        # Other threads may use CUDA meanwhile; their work is not captured.
        mode = "thread_local"
        with _CAPTURING, torch.cuda.graph(graph, self._pool, self.stream, mode):
            results = work()
        return graph.replay, results
