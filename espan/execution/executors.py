"""Executors run tiles through a network: in place, or on stream slots that overlap copies and work.

Both executors start a task for a window and write the pixels of its tile:
`start(pixels, out, area, wait) -> task | None`, `task.finish() -> bool`, `task.release()`.
`out()` returns the memory of the tile and is called when the task starts; `area` selects the tile
from the window's result. `out` may have one channel more than the result, which becomes opaque.
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

# Per slot. The tiles of an image have one shape; a folder or a video needs few shapes.
PROGRAMS = 4

Area = tuple[slice, slice]
Out = Callable[[], Tensor]
Bind = Callable[[Tensor], Work]


class DirectExecutor:
    """Computes a task in `finish`, straight into its target. Any device; stateless."""

    # On a CPU batching only helps thumbnails, and changes the order of their sums.
    batches = False
    overlaps = False

    def __init__(
        self, forward: Callable[[Tensor], Tensor], device: torch.device, dtype: torch.dtype
    ):
        self.forward, self.device, self.dtype = forward, device, dtype

    def start(self, pixels: Tensor, out: Out, area: Area, wait: bool) -> "DirectTask | None":
        """A task, or None unless the caller waits for it: two tasks at a time gain nothing."""
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
        x = to_network_input(self.pixels, self.executor.device, self.executor.dtype)
        y = self.executor.forward(x)
        return from_network_output(y[:, :, rows, columns], self.out)

    def release(self) -> None:
        """No-op: a direct task holds no resources."""


class StreamExecutor:
    """Runs tasks on a few stream slots of a device, each with its own memory.

    A task queues a copy to the device, the work and a copy back on one slot; tasks on different
    slots overlap. Threads share the slots: a task owns its slot until `release`, so threads never
    see each other's memory, and no thread waits for a slot while it holds one. The caller
    synchronises once per task: the pixels and the flag that validates them arrive together.

    bind(pixels): work on pixels at a fixed address; each call returns (pixels of the result, a
    tensor of one bool: whether to trust them). Untrusted windows run again on the fp32 `fallback`.
    """

    batches = overlaps = True

    def __init__(self, bind: Bind, slots: list[StreamSlot], fallback: DirectExecutor):
        self.bind, self.fallback = bind, fallback
        self._free: queue.LifoQueue = queue.LifoQueue()
        for slot in slots:
            self._free.put((slot, OrderedDict()))

    def start(self, pixels: Tensor, out: Out, area: Area, wait: bool) -> "StreamTask | None":
        """The queued task for these pixels, or None if no slot is free and `wait` is False."""
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
                # Retry without the memory cached for other shapes.
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
        """Returns a slot to the pool."""
        self._free.put(held)


class Program:
    """The work on windows of one shape, with its buffers on device and host."""

    @torch.inference_mode()
    def __init__(self, bind: Bind, slot: StreamSlot, pixels: Tensor, on_host: bool):
        with slot.current():
            self.pixels = torch.empty(
                pixels.shape,
                dtype=pixels.dtype,
                device=slot.device,
                memory_format=torch.channels_last,
            )
            self.work = Graph(bind(self.pixels), slot.capture)
        self.staged = slot.pinned(self.pixels) if on_host else None
        # Buffers that not every task needs are allocated on first use.
        self.fetched: Tensor | None = None
        self.opaque: Tensor | None = None
        self.trusted: Tensor | None = None

    @torch.inference_mode()
    def queue(
        self, slot: StreamSlot, pixels: Tensor, out: Tensor, area: Area
    ) -> tuple[Tensor, Tensor]:
        """Queues copies and work; returns (the tile's pixels, the trusted flag).

        Both are valid once the slot's stream reaches this point. The pixels are `out` itself if the
        device can write there.
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
        """y plus a white channel. Outside the graph, which tasks without alpha replay too."""
        n, channels, height, width = y.shape
        if self.opaque is None:
            self.opaque = torch.full(
                (n, channels + 1, height, width), WHITE[y.dtype], dtype=y.dtype, device=y.device
            ).contiguous(memory_format=torch.channels_last)
        self.opaque[:, :channels].copy_(y)
        return self.opaque


class StreamTask:
    """One window in flight on a slot."""

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
        """Waits, the first time, until the slot has done this task."""
        if self._mark:
            mark, self._mark = self._mark, None
            mark()

    def finish(self) -> bool:
        """Same as `DirectTask.finish`, after waiting for the stream."""
        self._wait()
        if not self.trusted.item():
            return DirectTask(self.executor.fallback, self.pixels, self.out, self.area).finish()
        if self.fetched is not self.out:
            self.out.copy_(self.fetched)
        return True

    def release(self) -> None:
        """Returns the slot to the pool, after waiting for the stream."""
        try:
            self._wait()
        finally:
            self.executor.free(self.held)


Executor = DirectExecutor | StreamExecutor
Task = DirectTask | StreamTask
