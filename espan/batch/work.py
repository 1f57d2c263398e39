"""Runs jobs, each from an input file to an output file, on threads, and reports their outcomes."""

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from espan import animation
from espan.batch.journal import Journal, stamp_of
from espan.batch.planning import FileJob, Outcome, failed, skipped
from espan.errors import DeviceLostError, EspanError, LimitError, OutputError
from espan.execution import streaming
from espan.execution.frames import Report
from espan.execution.pages import upscale_pages
from espan.images import files
from espan.sizes import Size, result_size
from espan.system import memory, shutdown
from espan.system.atomic import remove_leftovers
from espan.system.paths import reason

if TYPE_CHECKING:
    from espan.upscaler import Upscaler

# Pixels of a result. On a CPU, one core computes a result up to this size; all cores compute larger
# ones, one at a time. Results in memory total SMALL per core if memory is free, else 2 * SMALL.
SMALL = 50_000_000
# Bytes of free memory per pixel of a result: pixels, PIL's copy, compressed data.
BYTES_PER_PIXEL = 32
# Seconds that a stopped run waits for its threads to finish their tiles and files.
GRACE = 2.0

Progress = Callable[[FileJob, int, int], None]
# Runs a function in the right thread, and returns its result.
RunIn = Callable[[Callable[[], int]], int]


def run(
    jobs: Sequence[FileJob],
    upscalers: "Sequence[Upscaler]",
    scale: float | Size,
    *,
    workers: int | None = None,
    skip: Callable[[FileJob], bool] = lambda job: False,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Generator[Outcome]:
    """Upscales files and yields their outcomes in order; never raises for a single file.

    upscalers: one per device; images go to a free one. workers: images in parallel, see
    `default_workers`; on a CPU they share the cores, which does not change results. skip: called
    before a job, to skip it. journal: records finished jobs. `progress(job, done, total)`: counts
    the input pixels of an image; called from any thread.

    Closing the iterator early, as Ctrl-C does, stops the images in progress at their next tile.
    """
    for folder in {job.output.parent for job in jobs}:
        remove_leftovers(folder)
    workers = workers or default_workers(upscalers)
    workers = max(1, min(workers, len(jobs)))
    pool = WorkerPool(upscalers, scale, workers, skip, journal, progress)
    with closing(pool), shutdown.calling(pool.close):
        in_progress: deque[Future] = deque()
        for job in jobs:
            in_progress.append(pool.submit(job))
            while in_progress and (in_progress[0].done() or len(in_progress) >= 2 * workers):
                yield in_progress.popleft().result()
        while in_progress:
            yield in_progress.popleft().result()


def default_workers(upscalers: "Sequence[Upscaler]") -> int:
    """One worker per core, or two with GPUs, since workers wait for them; at least two per device.

    More workers on a CPU only use more processor time (docs/folder.md).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    each = 1 if _on_cpu(upscalers) else 2
    return max(each * (cores or 1), 2 * len(upscalers))


def _on_cpu(upscalers: "Sequence[Upscaler]") -> bool:
    return all(each.device.type == "cpu" for each in upscalers)


@contextmanager
def _unreserved(pixels: int) -> Iterator[RunIn]:
    yield lambda make: make()


def run_job(
    job: FileJob,
    upscaler: "Upscaler",
    scale: float | Size,
    reserve: Callable[[int], AbstractContextManager[RunIn]] = _unreserved,
    progress: Callable[[int, int], None] | None = None,
    computing: AbstractContextManager = streaming.ALWAYS,
) -> Outcome:
    """Runs one job from file to file.

    Computes and writes the result in the context `reserve(pixels)`, by the function it provides;
    enters the context `computing` to compute. Raises errors that are not the image's fault.
    """
    if job.problem:
        return failed(job, job.problem)
    began = time.perf_counter()
    try:
        try:
            image = files.read(job.input, scale=scale, limits=upscaler.limits)
        except files.AnimatedError:
            return _run_sequence(job, upscaler, scale, reserve, progress, animation.convert)
        except files.PagesError:
            return _run_sequence(job, upscaler, scale, reserve, progress, upscale_pages)
        size = result_size(scale, image.size)
        # Raises before the work if the result cannot be written.
        _make_folder(job.output.parent)
        files.check_output(job.output, image.mode, size)

        def make() -> int:
            before = upscaler.redone_here
            streaming.upscale_to(job.output, upscaler, image, scale, progress, computing)
            return upscaler.redone_here - before

        try:
            with reserve(size[0] * size[1]) as run_in:
                redone = run_in(make)
        except (LimitError, MemoryError, RuntimeError) as error:
            if not isinstance(error, LimitError) and not memory.ran_out(error):
                raise
            with reserve(sys.maxsize) as run_in:  # retry alone: other images may have used memory
                redone = run_in(make)
    except Exception as error:
        lost = isinstance(error, DeviceLostError)
        if lost or (not isinstance(error, EspanError) and not memory.ran_out(error)):
            raise
        return failed(job, str(error) if isinstance(error, EspanError) else "out of memory")
    seconds = round(time.perf_counter() - began, 3)
    return Outcome(str(job.input), str(job.output), "done", None, *size, seconds, redone)


def _run_sequence(
    job: FileJob,
    upscaler: "Upscaler",
    scale: float | Size,
    reserve: Callable[[int], AbstractContextManager[RunIn]],
    progress: Callable[[int, int], None] | None,
    convert: Callable[..., Report],
) -> Outcome:
    """`run_job` for an animation or a TIFF of several pages, with all cores and no other job."""
    began = time.perf_counter()
    _make_folder(job.output.parent)
    made: list[Report] = []

    def make() -> int:
        before = upscaler.redone
        made.append(convert(job.input, job.output, upscaler, scale, progress))
        return upscaler.redone - before

    with reserve(sys.maxsize) as run_in:
        redone = run_in(make)
    size = made[0].width, made[0].height
    seconds = round(time.perf_counter() - began, 3)
    return Outcome(str(job.input), str(job.output), "done", None, *size, seconds, redone)


class WorkerPool:
    """A pool of threads that run jobs. The threads do not prevent the interpreter from ending."""

    def __init__(self, upscalers, scale: float | Size, workers: int, skip, journal, progress):
        self.scale, self.skip, self.journal = scale, skip, journal
        self.progress = progress or (lambda job, done, total: None)
        self.workers, self.cores = workers, torch.get_num_threads()
        free = (memory.available() or 0) // BYTES_PER_PIXEL
        self.most = max(2 * SMALL, min(SMALL * self.cores, free))
        self.on_cpu = _on_cpu(upscalers)
        self._large: queue.SimpleQueue = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._idle: queue.SimpleQueue = queue.SimpleQueue()
        for i in range(workers):  # shares of the devices, taken and returned by workers
            self._idle.put(upscalers[i % len(upscalers)])
        self._stopping = threading.Event()
        self._used, self._changed = 0, threading.Condition()
        # More would only take memory: a core computes one, a GPU has two stream slots.
        self._computing = threading.BoundedSemaphore(max(2, self.cores))
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        self._threads.append(threading.Thread(target=self._work_large, daemon=True))
        for thread in self._threads:
            thread.start()

    def submit(self, job: FileJob) -> Future:
        future: Future = Future()
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Stops the threads: waiting ones immediately, computing ones at their next tile."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        for _ in self._threads:
            self._jobs.put(None)
        self._large.put(None)
        end = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))
        torch.set_num_threads(self.cores)

    def _work(self) -> None:
        _set_threads(max(1, self.cores // self.workers))
        while (taken := self._jobs.get()) is not None:
            job, future = taken
            try:
                self._raise_if_stopping()
                future.set_result(self._do(job))
            except _Stopped:
                return  # its future stays pending, as the interpreter ends
            except BaseException as error:
                future.set_exception(error)

    def _do(self, job: FileJob) -> Outcome:
        if not job.problem and self.skip(job):
            return skipped(job)

        def progress(done: int, total: int) -> None:
            self._raise_if_stopping()
            self.progress(job, done, total)

        source, upscaler = stamp_of(job.input), self._idle.get()
        try:
            outcome = run_job(job, upscaler, self.scale, self._reserve, progress, self._computing)
        finally:
            self._idle.put(upscaler)
        if self.journal and outcome.status == "done":
            self.journal.add(job, source)
        return outcome

    def _work_large(self) -> None:
        """The only thread that computes with all cores; see `one_thread` for the reason."""
        _set_threads(self.cores)
        while (taken := self._large.get()) is not None:
            make, future = taken
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)

    def _by_all_cores(self, make: Callable[[], int]) -> int:
        future: Future = Future()
        self._large.put((make, future))
        return future.result()

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise _Stopped

    @contextmanager
    def _reserve(self, pixels: int) -> Iterator[RunIn]:
        """Waits until memory for so many pixels is free; provides the function to compute with."""
        alone = pixels > (SMALL if self.on_cpu else self.most)
        share = self.most if alone else pixels
        all_cores = alone and self.on_cpu and self.workers > 1  # a single worker has all anyway
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping.is_set() or not self._used or self._used + share <= self.most
            )
            self._raise_if_stopping()
            self._used += share
        try:
            yield self._by_all_cores if all_cores else lambda make: make()
        finally:
            with self._changed:
                self._used -= share
                self._changed.notify_all()


class _Stopped(BaseException):
    """Raised in a job to stop it."""


def _set_threads(count: int) -> None:
    """Sets PyTorch's number of threads for the calling thread."""
    torch.get_num_threads()  # its first call in a thread would overwrite the setting
    torch.set_num_threads(count)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder}: could not be created: {reason(error)}") from error
