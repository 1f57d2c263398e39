"""Tiles through a network: at once where they lie, or on a GPU's lanes, copies beside the work.

Both kinds of engine start a job for the pixels of a window, and the job writes the pixels of its
tile: `start(pixels, wait) -> job | None`, `job.into(out, area) -> bool`, `job.release()`.
"""

import queue
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from espan.backends.base import Work
from espan.execution.cuda_graph import Graph, Lane
from espan.images.pixels import enter, leave
from espan.system import memory

# Kept by each lane: a picture's tiles have one shape, a folder's pictures or a video's frames few.
PROGRAMS = 4

Area = tuple[slice, slice]


class Direct:
    """Computes a job when its result is wanted, straight into the target. Any device, no state."""

    # On a CPU only thumbnails gain from lying side by side, and their sums come out otherwise.
    batches = False

    def __init__(
        self, forward: Callable[[Tensor], Tensor], device: torch.device, dtype: torch.dtype
    ):
        self.forward, self.device, self.dtype = forward, device, dtype

    def start(self, pixels: Tensor, wait: bool) -> "DirectJob | None":
        """A job, when the caller has no other left to do (`wait`): two at a time gain nothing."""
        return DirectJob(self, pixels) if wait else None


class DirectJob:
    """One window: pixels (N, C, H, W) -> (N, C, scale*H, scale*W)."""

    def __init__(self, engine: Direct, pixels: Tensor):
        self.engine, self.pixels, self.dtype = engine, pixels, engine.dtype

    @torch.inference_mode()
    def into(self, out: Tensor, area: Area) -> bool:
        """Writes `area` of the result to `out`; False if the network's output is not finite."""
        rows, columns = area
        y = self.engine.forward(enter(self.pixels, self.engine.device, self.engine.dtype))
        return leave(y[:, :, rows, columns], out)

    def release(self) -> None:
        """Nothing is held."""


class Engine:
    """Runs jobs on a few lanes of a device, each with memory of its own.

    A job is a copy to the device, the work and a copy back, in this order on one lane; jobs on
    different lanes overlap. Threads share the lanes: a job has one to itself until `release`, so
    no thread ever sees another's memory, and none waits for a lane while it holds one.

    bind(pixels): the work on pixels at a fixed address, (pixels of the result, whether they can be
    trusted as a tensor of one bool) at every call. Jobs that cannot be trusted go to `careful`.
    """

    batches = True

    def __init__(self, bind: Callable[[Tensor], Work], lanes: list[Lane], careful: Direct):
        self.bind, self.careful = bind, careful
        self._free: queue.LifoQueue = queue.LifoQueue()
        for lane in lanes:
            self._free.put((lane, OrderedDict()))

    def start(self, pixels: Tensor, wait: bool) -> "EngineJob | None":
        """The job of these pixels, queued; None if no lane is free and the caller cannot wait."""
        try:
            lane, programs = self._free.get(block=wait)
        except queue.Empty:
            return None
        try:
            try:
                return self._begin(lane, programs, pixels)
            except (RuntimeError, MemoryError) as error:
                if not (memory.ran_out(error) and programs):
                    raise
                # What other shapes hold may be what is missing.
                programs.clear()
                return self._begin(lane, programs, pixels)
        except BaseException:
            programs.clear()
            self.free((lane, programs))
            raise

    def _begin(self, lane: Lane, programs: OrderedDict, pixels: Tensor) -> "EngineJob":
        on_host = not lane.holds(pixels)
        key = tuple(pixels.shape), pixels.dtype, on_host
        if key not in programs:
            while len(programs) >= PROGRAMS:
                programs.popitem(last=False)
            programs[key] = Program(self.bind, lane, pixels, on_host)
        programs.move_to_end(key)
        return EngineJob(self, (lane, programs), programs[key], pixels)

    def free(self, held) -> None:
        """A lane that may be taken again."""
        self._free.put(held)


class Program:
    """The work on windows of one shape, with its memory on device and host."""

    @torch.inference_mode()
    def __init__(self, bind: Callable[[Tensor], Work], lane: Lane, pixels: Tensor, on_host: bool):
        with lane.current():
            self.pixels = torch.empty(
                pixels.shape,
                dtype=pixels.dtype,
                device=lane.device,
                memory_format=torch.channels_last,
            )
            self.work = Graph(bind(self.pixels), lane.capture)
        self.staged = lane.pinned(self.pixels) if on_host else None
        self.fetched: tuple[Tensor, Tensor] | None = None

    @torch.inference_mode()
    def queue(self, lane: Lane, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Queues copies and work; what it returns is there once the lane has come so far."""
        if self.staged is None:
            lane.follow()
            staged = pixels
        else:
            staged = self.staged.copy_(pixels)
        with lane.current():
            self.pixels.copy_(staged, non_blocking=True)
            results = self.work()
            if self.staged is None:
                return results
            if self.fetched is None:
                self.fetched = lane.pinned(results[0]), lane.pinned(results[1])
            for host, device in zip(self.fetched, results, strict=True):
                host.copy_(device, non_blocking=True)
        return self.fetched


class EngineJob:
    """One window on its way through a lane."""

    def __init__(self, engine: Engine, held, program: Program, pixels: Tensor):
        self.engine, self.held, self.pixels = engine, held, pixels
        self.dtype = engine.careful.dtype
        self.lane = held[0]
        self.program = program
        self.results = program.queue(self.lane, pixels)
        self.wait = self.lane.mark()

    def into(self, out: Tensor, area: Area) -> bool:
        """As of `DirectJob`; waits for the lane."""
        self.wait()
        y, trusted = self.results
        if not trusted.item():
            return DirectJob(self.engine.careful, self.pixels).into(out, area)
        rows, columns = area
        out.copy_(y[:, :, rows, columns])
        return True

    def release(self) -> None:
        """Gives the lane back, once it has come to its end."""
        try:
            self.wait()
            if self.program.staged is None:
                self.lane.follow()
        finally:
            self.engine.free(self.held)
