"""Runs a network on a device tile by tile, with tiles as large as memory allows.

Images and results stay in their own memory; only tiles are copied to the device.
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
from espan.errors import DeviceError, NonFiniteError
from espan.execution.cuda_graph import StreamSlot
from espan.execution.executors import DirectExecutor, DirectTask, Executor, StreamExecutor, Task
from espan.execution.schedule import SMALLEST_TILE, Target, TileBatch, TileSchedule
from espan.networks.deploy import copy_to
from espan.networks.folding import fold
from espan.networks.network import Network
from espan.options import UpscalerOptions
from espan.system import memory, pinned
from espan.system.devices import pick_device, pick_dtype

log = logging.getLogger("espan")

# Most input pixels per window with "auto". On a CPU, larger windows leave the caches and smaller
# ones spend their time in halos (docs/performance.md); a GPU runs faster the more work it has.
# Smaller images run in batches.
AUTO_WINDOW = {"cpu": 480 * 480, "cuda": 1024 * 1024}
# One slot copies while the other computes.
SLOTS = 2
# Fraction of a GPU's free memory for the windows of all slots, by a pessimistic estimate.
SHARE = 0.5

Step = Callable[[int, int], None]


class Request(NamedTuple):
    """source (N, C, H, W), C = 1 or 3, and the target (N, C, s*H, s*W) for its result.

    The target may have one channel more, which becomes opaque. After each tile, the runner calls
    `filled(rows, columns)` with the area just written, then `step(done, total)` in input pixels.
    """

    source: Tensor
    target: Target
    step: Step
    filled: Callable[[slice, slice], None] | None = None


class _InProgress:
    """A request in progress: its remaining tile batches and the number of input pixels done."""

    def __init__(self, request: Request, executor: Executor, schedule: TileSchedule):
        self.source, self.target, self.step, self.filled = request
        self.executor, self.schedule = executor, schedule
        n, _, height, width = self.source.shape
        self.done, self.total = 0, n * height * width

    def start(self, tiles: TileBatch, scale: int, wait: bool) -> Task | None:
        out = partial(tiles.target, self.target, scale)
        return self.executor.start(tiles.source(self.source), out, tiles.area(scale), wait)

    def count(self, tiles: TileBatch, scale: int) -> None:
        if self.filled:
            self.filled(*tiles.part.tile.enlarged(scale))
        self.done += tiles.pixels
        self.step(self.done, self.total)


class Runner:
    """Runs a network on batches of channels-first images (N, C, H, W) of any image dtype.

    8-bit images are computed in `dtype`; other images too if the options name a dtype, otherwise in
    float32. `redone` counts tiles that overflowed in `dtype` and were recomputed in float32,
    `redone_here` the tiles recomputed by the calling thread.
    Thread-safe: concurrent calls give the same bits as calls one by one. Raises DeviceError if this
    machine lacks a device, dtype or backend of the options.
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
            # The CUDA kernels take float16 only; float32 falls back to the next backend.
            other = "auto" if options.backend == "cuda" else options.backend
            fp32 = copy_to(net, device, torch.float32)
            self.backends[torch.float32] = backend_of(fp32, other)
        self._executors = {each: self._executor_for(each) for each in self.backends}
        # Allocates results on the host.
        self.empty: pinned.Empty = pinned.results if device.type == "cuda" else pinned.pageable

    def host_memory(
        self, n: int, height: int, width: int, pixels: torch.dtype = torch.uint8
    ) -> int:
        """Bytes of host memory for the largest tile batch of n images of dtype `pixels`."""
        if self.device.type != "cpu":
            return 0
        dtype = self._dtype_for(pixels)
        tiles = self._schedule(self._executors[dtype], n, (height, width)).next()
        height, width = tiles.part.window.size
        network_input = tiles.images * height * width * 3 * (4 + dtype.itemsize)
        return network_input + self.backends[dtype].memory(tiles.images, height, width)

    def rows(self, height: int, width: int) -> int:
        """The height of a row of tiles, in input rows: at most this many are in progress."""
        tiles = self._schedule(self._executors[self.dtype], 1, (height, width)).next()
        return tiles.part.window.size[0]

    def run(self, request: Request) -> None:
        """Fills the target of one request; raises as `fill` does."""
        for _ in self.fill([request]):
            pass

    def fill(self, requests: Iterable[Request]) -> Generator[None]:
        """Fills the targets of requests in order, and yields after each full target.

        On a GPU, the next requests are drawn and started meanwhile. Out of memory halves the
        batches, then the tiles, from the current one on; raises DeviceError if even the smallest
        tile does not fit, DeviceLostError if the CUDA context is lost. An exception of `requests`
        is raised once the requests before it are done.
        """
        torch.get_num_threads()  # a new thread ignores torch.set_num_threads until this call
        coming: Iterator[Request] | None = iter(requests)
        failure: Exception | None = None
        begun: deque[_InProgress] = deque()
        under_way: deque[tuple[_InProgress, TileBatch, Task]] = deque()
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
                            begun.append(self._begin(request))
                    except Exception as error:
                        coming, failure = None, error
                    request = None  # a reference would keep its result alive
                    continue
                if not begun:
                    break
                if waiting and self._started(waiting, under_way):
                    continue
                self._finish_first(under_way)
        finally:
            for _, _, started in under_way:
                with suppress(RuntimeError):  # the first exception is the one to report
                    started.release()
        if failure:
            try:
                raise failure
            finally:
                failure = None  # breaks the cycle of traceback and frame

    def _may_begin(self, begun: Sequence[_InProgress]) -> bool:
        """Whether to begin another request: one for each slot, and one more in the queue."""
        return not begun or (begun[-1].executor.overlaps and len(begun) <= SLOTS)

    def _begin(self, request: Request) -> _InProgress:
        n, _, *size = request.source.shape
        executor = self._executors[self._dtype_for(request.source.dtype)]
        return _InProgress(request, executor, self._schedule(executor, n, size))

    def _started(self, waiting: _InProgress, under_way: deque) -> bool:
        """Starts the next tile batch of `waiting`, or shrinks it if out of memory.

        Returns False if it must wait for a task under way to free a slot.
        """
        tiles = waiting.schedule.next()
        try:
            started = waiting.start(tiles, self.scale, wait=not under_way)
        except (RuntimeError, MemoryError) as error:
            self._halve(waiting.schedule, waiting.schedule.pop(), error)
            return True
        if started is None:
            return False
        under_way.append((waiting, waiting.schedule.pop(), started))
        return True

    def _finish_first(self, under_way: deque) -> None:
        """Finishes the oldest task; reschedules its tiles if it ran out of memory."""
        begun, tiles, started = under_way.popleft()
        try:
            try:
                self._finish(started, tiles, begun.source)
            finally:
                started.release()  # also fails if the GPU is lost
        except (RuntimeError, MemoryError) as error:
            self._halve(begun.schedule, tiles, error)
            return
        begun.count(tiles, self.scale)

    def _dtype_for(self, pixels: torch.dtype) -> torch.dtype:
        low = self.low_precision or pixels == torch.uint8
        return self.dtype if low else torch.float32

    @property
    def redone_here(self) -> int:
        return getattr(self._here, "redone", 0)

    def _auto_window(self) -> int:
        """Input pixels per window with "auto": fewer if a GPU has little free memory."""
        most = AUTO_WINDOW.get(self.device.type, AUTO_WINDOW["cpu"])
        free = memory.free_on(self.device)
        if free is None:
            return most
        pixel = memory.for_pixels(1, self.channels, self.dtype)
        least = (2 * self.radius + SMALLEST_TILE) ** 2
        return max(least, min(most, int(SHARE * free / SLOTS / pixel)))

    def _schedule(self, executor: Executor, n: int, size: Sequence[int]) -> TileSchedule:
        tile = self._auto_tile(size, executor) if self.tile == "auto" else self.tile or size
        return TileSchedule(n, size, tile, self.radius, self.window if executor.batches else 0)

    def _auto_tile(self, size: Sequence[int], executor: Executor) -> tuple[int, int]:
        """A square tile, or on a GPU full rows, whose result is contiguous and takes one transfer.

        Images so wide that the halos would dominate get square tiles.
        """
        side = int(self.window**0.5) - 2 * self.radius
        rows = self.window // size[1] - 2 * self.radius
        return (rows, size[1]) if executor.overlaps and rows >= 12 * self.radius else (side, side)

    def _halve(self, schedule: TileSchedule, failed: TileBatch, error: Exception) -> None:
        """Shrinks the schedule if `error` is out of memory; raises if it cannot, or for others."""
        memory.raise_if_lost(self.device, error)
        if not memory.ran_out(error):
            raise error
        rows, columns = failed.part.window.size
        if not schedule.halve(failed):
            raise DeviceError(
                f"{self.device}: out of memory even for a tile of {columns} x {rows} pixels"
            ) from error
        used = f"{failed.images} tiles of {columns} x {rows} pixels"
        log.warning("%s: out of memory for %s, retrying with less", self.device, used)

    def _finish(self, started: Task, tiles: TileBatch, source: Tensor) -> None:
        if started.finish():
            return
        if started.dtype != torch.float32:
            log.warning("a tile overflowed in %s and is computed again in float32", started.dtype)
            with self._lock:
                self.redone += tiles.images
            self._here.redone = self.redone_here + tiles.images
            fp32 = self._direct(torch.float32)
            if DirectTask(fp32, tiles.source(source), started.out, started.area).finish():
                return
        raise NonFiniteError("the network's output is not finite, even in float32")

    def explain(self) -> str:
        """The steps that compute 8-bit images."""
        return self.backends[self.dtype].explain()

    def _direct(self, dtype: torch.dtype) -> DirectExecutor:
        return DirectExecutor(lambda x: self._forward(x, dtype), self.device, dtype)

    def _executor_for(self, dtype: torch.dtype) -> Executor:
        direct = self._direct(dtype)
        if self.device.type != "cuda":
            return direct
        slots = [StreamSlot(self.device) for _ in range(SLOTS)]
        return StreamExecutor(partial(self._bind, dtype), slots, direct)

    def _bind(self, dtype: torch.dtype, pixels: Tensor) -> Work:
        """The work of a stream executor on pixels at a fixed address."""
        return self.backends[dtype].bind(pixels)

    @torch.inference_mode()
    def _forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self.backends[dtype](x)
