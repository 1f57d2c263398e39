"""Tiles through a network: at once where they lie, or on a GPU's slots, copies beside the work.

Both kinds of executor start a job, which computes the pixels of a window and writes those of its
tile: `start(pixels, out, area, wait) -> job | None`, `job.finish() -> bool`, `job.release()`.
`out` gives the memory for the tile, and is called once the job begins; `area` is what of the
window's result goes there. `out` may have one channel more than the result, to be opaque.
"""

import queue
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from espan.backends.base import Work
from espan.execution.cuda_graph import Graph, StreamSlot
from espan.images.pixels import WHITE, from_network_output, to_network_input
from espan.system import memory

# Kept by each slot: a picture's tiles have one shape, a folder's pictures or a video's frames few.
PROGRAMS = 4

Area = tuple[slice, slice]
Out = Callable[[], Tensor]
Bind = Callable[[Tensor], Work]


class DirectExecutor:
    """Computes a job when its result is wanted, straight into the target. Any device, no state."""

    # On a CPU only thumbnails gain from lying side by side, and their sums come out otherwise.
    batches = False
    # Nothing is under way while the caller does something else.
    overlaps = False

    def __init__(
        self, forward: Callable[[Tensor], Tensor], device: torch.device, dtype: torch.dtype
    ):
        self.forward, self.device, self.dtype = forward, device, dtype

    def start(self, pixels: Tensor, out: Out, area: Area, wait: bool) -> "DirectTask | None":
        """A job, when the caller has no other left to do (`wait`): two at a time gain nothing."""
        return DirectTask(self, pixels, out(), area) if wait else None


class DirectTask:
    """One window: pixels (N, C, H, W) -> (N, C, scale*H, scale*W)."""

    def __init__(self, executor: DirectExecutor, pixels: Tensor, out: Tensor, area: Area):
        self.executor, self.pixels, self.dtype = executor, pixels, executor.dtype
        self.out, self.area = out, area

    @torch.inference_mode()
    def finish(self) -> bool:
        """Writes `area` of the result to `out`; False if the network's output is not finite."""
        rows, columns = self.area
        y = self.executor.forward(
            to_network_input(self.pixels, self.executor.device, self.executor.dtype)
        )
        return from_network_output(y[:, :, rows, columns], self.out)

    def release(self) -> None:
        """Nothing is held."""


class StreamExecutor:
    """Runs jobs on a few slots of a device, each with memory of its own.

    A job is a copy to the device, the work and a copy back, in this order on one slot; jobs on
    different slots overlap. Threads share the slots: a job has one to itself until `release`, so
    no thread ever sees another's memory, and none waits for a slot while it holds one.
    The caller waits for a job once: the pixels and whether they can be trusted come together.

    bind(pixels): the work on pixels at a fixed address, (pixels of the result, whether they can be
    trusted as a tensor of one bool) at every call. What cannot be trusted is computed again by the
    fp32 `fallback`.
    """

    batches = overlaps = True

    def __init__(self, bind: Bind, slots: list[StreamSlot], fallback: DirectExecutor):
        self.bind, self.fallback = bind, fallback
        self._free: queue.LifoQueue = queue.LifoQueue()
        for slot in slots:
            self._free.put((slot, OrderedDict()))

    def start(self, pixels: Tensor, out: Out, area: Area, wait: bool) -> "StreamTask | None":
        """The job of these pixels, queued; None if no slot is free and the caller cannot wait."""
        try:
            slot, programs = self._free.get(block=wait)
        except queue.Empty:
            return None
        try:
            try:
                return self._begin(slot, programs, pixels, out, area)
            except (RuntimeError, MemoryError) as error:
                if not (memory.ran_out(error) and programs):
                    raise
                # What other shapes hold may be what is missing.
                programs.clear()
                return self._begin(slot, programs, pixels, out, area)
        except BaseException:
            programs.clear()
            self.free((slot, programs))
            raise

    def _begin(self, slot, programs, pixels: Tensor, out: Out, area: Area) -> "StreamTask":
        on_host = not slot.holds(pixels)
        key = tuple(pixels.shape), pixels.dtype, on_host
        if key not in programs:
            while len(programs) >= PROGRAMS:
                programs.popitem(last=False)
            programs[key] = Program(self.bind, slot, pixels, on_host)
        programs.move_to_end(key)
        return StreamTask(self, (slot, programs), programs[key], pixels, out(), area)

    def free(self, held) -> None:
        """A slot that may be taken again."""
        self._free.put(held)


class Program:
    """The work on windows of one shape, with its memory on device and host."""

    @torch.inference_mode()
    def __init__(
        self, bind: Callable[[Tensor], Work], slot: StreamSlot, pixels: Tensor, on_host: bool
    ):
        with slot.current():
            self.pixels = torch.empty(
                pixels.shape,
                dtype=pixels.dtype,
                device=slot.device,
                memory_format=torch.channels_last,
            )
            self.work = Graph(bind(self.pixels), slot.capture)
        self.staged = slot.pinned(self.pixels) if on_host else None
        # What is not needed by every job is taken when one needs it.
        self.fetched: Tensor | None = None
        self.opaque: Tensor | None = None
        self.trusted: Tensor | None = None

    @torch.inference_mode()
    def queue(
        self, slot: StreamSlot, pixels: Tensor, out: Tensor, area: Area
    ) -> tuple[Tensor, Tensor]:
        """Queues copies and work: (the tile's pixels, which are `out` itself where the device can
        write there, whether they can be trusted), both there once the slot has come so far.
        """
        if self.staged is None:
            slot.follow()
            staged = pixels
        else:
            staged = self.staged.copy_(pixels)
        rows, columns = area
        with slot.current():
            self.pixels.copy_(staged, non_blocking=True)
            y, trusted = self.work()
            if self.trusted is None:
                self.trusted = slot.pinned(trusted)
            self.trusted.copy_(trusted, non_blocking=True)
            if out.size(1) > y.size(1):
                y = self._made_opaque(y)
            if slot.writes(out):
                slot.write(y[:, :, rows, columns], out)
                return out, self.trusted
            if self.fetched is None or self.fetched.shape != y.shape:
                self.fetched = slot.pinned(y)
            self.fetched.copy_(y, non_blocking=True)
        return self.fetched[:, :, rows, columns], self.trusted

    def _made_opaque(self, y: Tensor) -> Tensor:
        """y with one channel more, white. No part of the graph, which other jobs replay without."""
        n, channels, height, width = y.shape
        if self.opaque is None:
            self.opaque = torch.full(
                (n, channels + 1, height, width), WHITE[y.dtype], dtype=y.dtype, device=y.device
            ).contiguous(memory_format=torch.channels_last)
        self.opaque[:, :channels].copy_(y)
        return self.opaque


class StreamTask:
    """One window on its way through a slot."""

    def __init__(
        self, executor: StreamExecutor, held, program: Program, pixels, out: Tensor, area: Area
    ):
        self.executor, self.held, self.pixels = executor, held, pixels
        self.dtype = executor.fallback.dtype
        self.out, self.area = out, area
        slot = held[0]
        self.fetched, self.trusted = program.queue(slot, pixels, out, area)
        self._mark: Callable[[], None] | None = slot.mark()

    def _wait(self) -> None:
        """Waits for the slot to come so far, once."""
        if self._mark:
            mark, self._mark = self._mark, None
            mark()

    def finish(self) -> bool:
        """As of `DirectTask`; waits for the slot."""
        self._wait()
        if not self.trusted.item():
            return DirectTask(self.executor.fallback, self.pixels, self.out, self.area).finish()
        if self.fetched is not self.out:
            self.out.copy_(self.fetched)
        return True

    def release(self) -> None:
        """Gives the slot back, once it has come to its end."""
        try:
            self._wait()
        finally:
            self.executor.free(self.held)
