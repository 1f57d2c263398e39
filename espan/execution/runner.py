"""A network at work on a device: planes in, planes out, tile by tile, whatever memory allows.

Pictures and results stay where they are; only tiles travel to the device.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from espan.backends.base import Work
from espan.backends.select import backend_of
from espan.errors import DeviceError, DeviceLostError, NonFiniteError
from espan.execution.cuda_graph import Lane
from espan.execution.executors import Direct, DirectJob, Engine, EngineJob
from espan.execution.schedule import SMALLEST_TILE, Job, Jobs, Target
from espan.networks.deploy import copy_to
from espan.networks.folding import fold
from espan.networks.network import Network
from espan.options import UpscalerOptions
from espan.system import memory
from espan.system.devices import pick_device, pick_dtype

log = logging.getLogger("espan")

# Input pixels per window with "auto", at most. On a CPU, larger ones leave the caches and smaller
# ones spend their time in halos (docs/performance.md); a GPU wants all the work it can get.
# Pictures smaller than that are computed several at once.
AUTO_WINDOW = {"cpu": 480 * 480, "cuda": 1024 * 1024}
# One copies while the other computes.
LANES = 2
# Of a GPU's free memory, what the windows of its lanes may take by a pessimist's estimate.
SHARE = 0.5

Step = Callable[[int, int], None]


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
        self._engines = {each: self._engine(each) for each in self.backends}

    def host_memory(
        self, n: int, height: int, width: int, pixels: torch.dtype = torch.uint8
    ) -> int:
        """Bytes of host memory that the largest tile takes of n pictures of such pixels."""
        if self.device.type != "cpu":
            return 0
        dtype = self._dtype_for(pixels)
        job = self._jobs(self._engines[dtype], n, (height, width)).next()
        height, width = job.part.window.size
        entered = job.pictures * height * width * 3 * (4 + dtype.itemsize)
        return entered + self.backends[dtype].memory(job.pictures, height, width)

    def rows(self, height: int, width: int) -> int:
        """Input rows that are computed before those below them: a row of tiles has no more."""
        job = self._jobs(self._engines[self.dtype], 1, (height, width)).next()
        return job.part.window.size[0]

    def run(self, source: Tensor, target: Target, step: Step) -> None:
        """Fills target (N, C, s*H, s*W) from source (N, C, H, W), C = 1 or 3, N at least 1.

        `step(done, total)` counts input pixels. Out of memory halves the batches, then the tiles,
        from the one reached on; DeviceError when even the smallest does not fit, DeviceLostError
        for whatever else a GPU fails with.
        """
        torch.get_num_threads()  # a new thread's convolutions go by torch.set_num_threads only now
        n, _, *size = source.shape
        engine = self._engines[self._dtype_for(source.dtype)]
        jobs, done = self._jobs(engine, n, size), 0
        under_way: deque = deque()
        try:
            while jobs or under_way:
                if jobs:
                    job = jobs.next()
                    try:
                        started = engine.start(job.source(source), wait=not under_way)
                    except (RuntimeError, MemoryError) as error:
                        self._halve(jobs, jobs.pop(), error)
                        continue
                    if started:
                        under_way.append((jobs.pop(), started))
                        continue
                job, started = under_way.popleft()
                try:
                    try:
                        self._finish(started, job, source, target)
                    finally:
                        started.release()  # which on a lost GPU fails too
                except (RuntimeError, MemoryError) as error:
                    self._halve(jobs, job, error)
                    continue
                done += job.pixels
                step(done, n * size[0] * size[1])
        finally:
            for _, started in under_way:
                with suppress(RuntimeError):  # what is raised already says why
                    started.release()

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
        return max(least, min(most, int(SHARE * free / LANES / pixel)))

    def _jobs(self, engine: Direct | Engine, n: int, size: Sequence[int]) -> Jobs:
        largest = self.window
        side = int(largest**0.5) - 2 * self.radius
        tile = (side, side) if self.tile == "auto" else self.tile or size
        return Jobs(n, size, tile, self.radius, largest if engine.batches else 0)

    def _halve(self, jobs: Jobs, failed: Job, error: Exception) -> None:
        """Goes on with smaller jobs after `error`, if that is what it asks for and they can be."""
        if memory.lost(error):
            raise DeviceLostError(
                f"{self.device}: its CUDA context is lost, only a new process can use it again: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        if not memory.ran_out(error):
            raise error
        rows, columns = failed.part.window.size
        if not jobs.halve(failed):
            raise DeviceError(
                f"{self.device}: out of memory even for a tile of {columns} x {rows} pixels"
            ) from error
        used = f"{failed.pictures} of {columns} x {rows} pixels at once"
        log.warning("%s: out of memory, %s; it goes on with less", self.device, used)

    def _finish(
        self, started: DirectJob | EngineJob, job: Job, source: Tensor, target: Target
    ) -> None:
        out, area = job.target(target, self.scale), job.area(self.scale)
        if started.into(out, area):
            return
        if started.dtype != torch.float32:
            log.warning("%s overflowed in a tile; it is computed again in float32", started.dtype)
            with self._lock:
                self.redone += job.pictures
            self._here.redone = self.redone_here + job.pictures
            again = DirectJob(self._direct(torch.float32), job.source(source))
            if again.into(out, area):
                return
        raise NonFiniteError("the network's output is not finite, even in float32")

    def explain(self) -> str:
        """What images of 8 bits go through, step by step."""
        return self.backends[self.dtype].explain()

    def _direct(self, dtype: torch.dtype) -> Direct:
        return Direct(lambda x: self._forward(x, dtype), self.device, dtype)

    def _engine(self, dtype: torch.dtype) -> Direct | Engine:
        direct = self._direct(dtype)
        if self.device.type != "cuda":
            return direct
        lanes = [Lane(self.device) for _ in range(LANES)]
        return Engine(partial(self._bind, dtype), lanes, direct)

    def _bind(self, dtype: torch.dtype, pixels: Tensor) -> Work:
        """What an engine does with pixels at a fixed address."""
        return self.backends[dtype].bind(pixels)

    @torch.inference_mode()
    def _forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self.backends[dtype](x)
