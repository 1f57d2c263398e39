"""A network at work on a device: planes in, planes out, tile by tile, whatever memory allows.

Pictures and results stay where they are; only tiles travel to the device.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from espan.backends.base import Work
from espan.backends.select import backend_of
from espan.errors import DeviceError, DeviceLostError, NonFiniteError
from espan.execution.cuda_graph import StreamSlot
from espan.execution.executors import DirectExecutor, DirectTask, StreamExecutor, StreamTask
from espan.execution.schedule import SMALLEST_TILE, Target, TileBatch, TileSchedule
from espan.networks.deploy import copy_to
from espan.networks.folding import fold
from espan.networks.network import Network
from espan.options import UpscalerOptions
from espan.system import memory, pinned
from espan.system.devices import pick_device, pick_dtype

log = logging.getLogger("espan")

# Input pixels per window with "auto", at most. On a CPU, larger ones leave the caches and smaller
# ones spend their time in halos (docs/performance.md); a GPU wants all the work it can get.
# Pictures smaller than that are computed several at once.
AUTO_WINDOW = {"cpu": 480 * 480, "cuda": 1024 * 1024}
# One copies while the other computes.
SLOTS = 2
# Of a GPU's free memory, what the windows of its slots may take by a pessimist's estimate.
SHARE = 0.5

Step = Callable[[int, int], None]


class Request(NamedTuple):
    """target (N, C, s*H, s*W) to be filled from source (N, C, H, W), C = 1 or 3.

    The target may have one channel more, which becomes opaque. `step(done, total)` counts input
    pixels; `filled(rows, columns)` says which of the target are there, before the step.
    """

    source: Tensor
    target: Target
    step: Step
    filled: Callable[[slice, slice], None] | None = None


class _Begun:
    """A request under way: the jobs left of it, and how many input pixels are done."""

    def __init__(
        self, request: Request, executor: DirectExecutor | StreamExecutor, schedule: TileSchedule
    ):
        self.source, self.target, self.step, self.filled = request
        self.executor, self.schedule = executor, schedule
        n, _, height, width = self.source.shape
        self.done, self.total = 0, n * height * width

    def start(self, job: TileBatch, scale: int, wait: bool) -> DirectTask | StreamTask | None:
        out = partial(job.target, self.target, scale)
        return self.executor.start(job.source(self.source), out, job.area(scale), wait)

    def count(self, job: TileBatch, scale: int) -> None:
        if self.filled:
            self.filled(*job.part.tile.enlarged(scale))
        self.done += job.pixels
        self.step(self.done, self.total)


class Runner:
    """Runs a network on batches of planes (N, C, H, W) of any dtype a picture can have.

    `dtype` is what images of 8 bits are computed in; the others too, if it was asked for by name,
    else in float32. `redone` counts tiles that overflowed in `dtype` and were computed again in
    float32, `redone_here` those of the thread that asks.
    Safe between threads, which get the bits that each would get alone. Raises DeviceError for what
    the options ask and this machine lacks.
    """

    def __init__(self, net: Network, options: UpscalerOptions):
        net = net if net.folded else fold(net)
        self.scale, self.radius = net.scale, net.radius
        self.channels = net.config["channels"]
        self.device = device = pick_device(options.device)
        self.dtype = pick_dtype(options.dtype, device, options.backend)
        self.tile = options.sides
        self.low_precision = options.dtype != "auto"
        self.redone, self._here = 0, threading.local()
        self.window = self._auto_window()
        self._lock = threading.Lock()
        copy = copy_to(net, device, self.dtype, options.dtype == "tf32")
        self.backends = {self.dtype: backend_of(copy, options.backend)}
        if self.dtype != torch.float32:
            # The CUDA convolutions take float16: what float32 is for goes by the next in line.
            other = "auto" if options.backend == "cuda" else options.backend
            exact = copy_to(net, device, torch.float32)
            self.backends[torch.float32] = backend_of(exact, other)
        self._executors = {each: self._executor_for(each) for each in self.backends}
        # What results on the host are written to.
        self.empty: pinned.Empty = pinned.results if device.type == "cuda" else pinned.ordinary

    def host_memory(
        self, n: int, height: int, width: int, pixels: torch.dtype = torch.uint8
    ) -> int:
        """Bytes of host memory that the largest tile takes of n pictures of such pixels."""
        if self.device.type != "cpu":
            return 0
        dtype = self._dtype_for(pixels)
        job = self._schedule(self._executors[dtype], n, (height, width)).next()
        height, width = job.part.window.size
        entered = job.pictures * height * width * 3 * (4 + dtype.itemsize)
        return entered + self.backends[dtype].memory(job.pictures, height, width)

    def rows(self, height: int, width: int) -> int:
        """Input rows that are computed before those below them: a row of tiles has no more."""
        job = self._schedule(self._executors[self.dtype], 1, (height, width)).next()
        return job.part.window.size[0]

    def run(self, request: Request) -> None:
        """Fills the target of one; raises as `fill` does."""
        for _ in self.fill([request]):
            pass

    def fill(self, requests: Iterable[Request]) -> Generator[None]:
        """Fills the targets of requests, and says of each, in their order, when it is full.

        Meanwhile a GPU has the next ones under way: they are asked for before they are waited for.
        Out of memory halves the batches, then the tiles, from the one reached on; DeviceError when
        even the smallest does not fit, DeviceLostError for whatever else a GPU fails with. What
        the requests themselves raise comes when those before are done.
        """
        torch.get_num_threads()  # a new thread's convolutions go by torch.set_num_threads only now
        coming: Iterator[Request] | None = iter(requests)
        failure: Exception | None = None
        begun: deque[_Begun] = deque()
        under_way: deque[tuple[_Begun, TileBatch, DirectTask | StreamTask]] = deque()
        try:
            while True:
                if begun and begun[0].done == begun[0].total:
                    begun.popleft()
                    yield
                    continue
                waiting = next((each for each in begun if each.schedule), None)
                if not waiting and coming and self._may_begin(begun):
                    try:
                        if (request := next(coming, None)) is None:
                            coming = None
                        else:
                            begun.append(self._begun(request))
                    except Exception as error:
                        coming, failure = None, error
                    request = None  # or its result would live as long as this does
                    continue
                if not begun:
                    break
                if waiting and self._started(waiting, under_way):
                    continue
                self._finish_first(under_way)
        finally:
            for _, _, started in under_way:
                with suppress(RuntimeError):  # what is raised already says why
                    started.release()
        if failure:
            try:
                raise failure
            finally:
                failure = None  # its traceback holds this frame

    def _may_begin(self, begun: Sequence[_Begun]) -> bool:
        """Whether another request may begin: one for each slot, and one that waits for the next."""
        return not begun or (begun[-1].executor.overlaps and len(begun) <= SLOTS)

    def _begun(self, request: Request) -> _Begun:
        n, _, *size = request.source.shape
        executor = self._executors[self._dtype_for(request.source.dtype)]
        return _Begun(request, executor, self._schedule(executor, n, size))

    def _started(self, waiting: _Begun, under_way: deque) -> bool:
        """Starts the next job of `waiting`, or finds that it must be smaller; False if no slot is
        free for it, and others are under way."""
        job = waiting.schedule.next()
        try:
            started = waiting.start(job, self.scale, wait=not under_way)
        except (RuntimeError, MemoryError) as error:
            self._halve(waiting.schedule, waiting.schedule.pop(), error)
            return True
        if started is None:
            return False
        under_way.append((waiting, waiting.schedule.pop(), started))
        return True

    def _finish_first(self, under_way: deque) -> None:
        """Waits for the job that was started first; one that ran out of memory is done again."""
        begun, job, started = under_way.popleft()
        try:
            try:
                self._finish(started, job, begun.source)
            finally:
                started.release()  # which on a lost GPU fails too
        except (RuntimeError, MemoryError) as error:
            self._halve(begun.schedule, job, error)
            return
        begun.count(job, self.scale)

    def _dtype_for(self, pixels: torch.dtype) -> torch.dtype:
        low = self.low_precision or pixels == torch.uint8
        return self.dtype if low else torch.float32

    @property
    def redone_here(self) -> int:
        return getattr(self._here, "redone", 0)

    def _auto_window(self) -> int:
        """Input pixels per window with "auto": fewer where a GPU has little memory free."""
        most = AUTO_WINDOW.get(self.device.type, AUTO_WINDOW["cpu"])
        free = memory.free_on(self.device)
        if free is None:
            return most
        pixel = memory.for_pixels(1, self.channels, self.dtype)
        least = (2 * self.radius + SMALLEST_TILE) ** 2
        return max(least, min(most, int(SHARE * free / SLOTS / pixel)))

    def _schedule(
        self, executor: DirectExecutor | StreamExecutor, n: int, size: Sequence[int]
    ) -> TileSchedule:
        tile = self._auto_tile(size, executor) if self.tile == "auto" else self.tile or size
        return TileSchedule(n, size, tile, self.radius, self.window if executor.batches else 0)

    def _auto_tile(
        self, size: Sequence[int], executor: DirectExecutor | StreamExecutor
    ) -> tuple[int, int]:
        """A square, or whole rows: their result is one piece of memory, which a GPU fills with one
        transfer. Not of pictures so wide that halos would be most of a band of rows.
        """
        side = int(self.window**0.5) - 2 * self.radius
        rows = self.window // size[1] - 2 * self.radius
        return (rows, size[1]) if executor.overlaps and rows >= 12 * self.radius else (side, side)

    def _halve(self, schedule: TileSchedule, failed: TileBatch, error: Exception) -> None:
        """Goes on with smaller jobs after `error`, if that is what it asks for and they can be."""
        if memory.lost(error):
            raise DeviceLostError(
                f"{self.device}: its CUDA context is lost, only a new process can use it again: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        if not memory.ran_out(error):
            raise error
        rows, columns = failed.part.window.size
        if not schedule.halve(failed):
            raise DeviceError(
                f"{self.device}: out of memory even for a tile of {columns} x {rows} pixels"
            ) from error
        used = f"{failed.pictures} of {columns} x {rows} pixels at once"
        log.warning("%s: out of memory, %s; it goes on with less", self.device, used)

    def _finish(self, started: DirectTask | StreamTask, job: TileBatch, source: Tensor) -> None:
        if started.finish():
            return
        if started.dtype != torch.float32:
            log.warning("%s overflowed in a tile; it is computed again in float32", started.dtype)
            with self._lock:
                self.redone += job.pictures
            self._here.redone = self.redone_here + job.pictures
            exact = self._direct(torch.float32)
            if DirectTask(exact, job.source(source), started.out, started.area).finish():
                return
        raise NonFiniteError("the network's output is not finite, even in float32")

    def explain(self) -> str:
        """What images of 8 bits go through, step by step."""
        return self.backends[self.dtype].explain()

    def _direct(self, dtype: torch.dtype) -> DirectExecutor:
        return DirectExecutor(lambda x: self._forward(x, dtype), self.device, dtype)

    def _executor_for(self, dtype: torch.dtype) -> DirectExecutor | StreamExecutor:
        direct = self._direct(dtype)
        if self.device.type != "cuda":
            return direct
        slots = [StreamSlot(self.device) for _ in range(SLOTS)]
        return StreamExecutor(partial(self._bind, dtype), slots, direct)

    def _bind(self, dtype: torch.dtype, pixels: Tensor) -> Work:
        """What an executor does with pixels at a fixed address."""
        return self.backends[dtype].bind(pixels)

    @torch.inference_mode()
    def _forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self.backends[dtype](x)
