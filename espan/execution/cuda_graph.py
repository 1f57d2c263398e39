"""CUDA graphs: work that is queued again and again, captured once and from then on replayed."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from espan.backends.base import Work
from espan.system import pinned

log = logging.getLogger("espan")

# A capture waits for the whole device at its start, which must not fall into another capture.
_CAPTURING = threading.Lock()

Capture = Callable[[Work], tuple[Callable[[], Any], tuple[Tensor, Tensor]]]


class Graph:
    """`work()` whose tensors lie at fixed addresses: run as it is once, then captured and replayed.

    The first run is for what a graph cannot hold: compiling kernels, loading them. `capture(work)`
    gives (replay, the tensors that every replay fills); if it raises, the work runs as it is for
    good, and the log has the reason.
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
                log.warning("no CUDA graph, kernels are launched one by one: %s", reason)
            self._capture = None
        self._warm = True
        if self._replay is None or self._results is None:
            return self._work()
        self._replay()
        return self._results


def _order(out: Tensor) -> torch.memory_format | None:
    """The order in which `out` (N, C, H, W) lies in memory without gaps, or None."""
    orders = (torch.channels_last, torch.contiguous_format)
    return next((one for one in orders if out.is_contiguous(memory_format=one)), None)


class StreamSlot:
    """A stream of a GPU, and how memory, captures and waiting work on it."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)
        # With its number, unlike the device asked for.
        self.device = self.stream.device
        self._pool = torch.cuda.graph_pool_handle()
        self.follow()  # the weights may still be on their way

    def current(self):
        """A context in which work goes to this slot."""
        return torch.cuda.stream(self.stream)

    def holds(self, pixels: Tensor) -> bool:
        """Whether they are on this slot's device already."""
        return pixels.device == self.device

    def follow(self) -> None:
        """What comes next waits for what the caller has queued on its own stream so far."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def mark(self) -> Callable[[], None]:
        """A function that waits for what the slot holds by now."""
        event = torch.cuda.Event()
        event.record(self.stream)
        return event.synchronize

    def pinned(self, like: Tensor) -> Tensor:
        """Host memory as `like`, which copies to and from the device without waiting."""
        return pinned.staging(like)

    def writes(self, out: Tensor) -> bool:
        """Whether this slot can fill `out` itself: on its device, or in locked pages in one piece,
        for which a copy is one transfer.
        """
        return self.holds(out) or (_order(out) is not None and pinned.locked(out))

    def write(self, y: Tensor, out: Tensor) -> None:
        """Queues the copy of y into an `out` that it `writes`."""
        if order := None if self.holds(out) else _order(out):
            y = y.contiguous(memory_format=order)
        out.copy_(y, non_blocking=True)

    def capture(self, work: Work) -> tuple[Callable[[], None], tuple[Tensor, Tensor]]:
        """As `Graph` wants it. All graphs of a slot share the memory of what is in between."""
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on: what they do is no part of this capture.
        mode = "thread_local"
        with _CAPTURING, torch.cuda.graph(graph, self._pool, self.stream, mode):
            results = work()
        return graph.replay, results
