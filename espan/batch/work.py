"""Jobs done by threads, each taking a picture from file to file, and what became of each job."""

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
from espan.batch.journal import Journal, mark
from espan.batch.planning import Job, Outcome, failed, skipped
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

# Pixels of a result that one core makes by itself on a CPU; all cores make a larger one, alone. As
# many for each core are in memory at once where there is room for them, and twice as many anywhere.
HELD = 50_000_000
# Bytes of free memory that are wanted for each of them: pixels, PIL's copy, what is compressed.
ROOM = 32
# Seconds that a run which is stopped waits for the tiles and files under way.
GRACE = 2.0

Progress = Callable[[Job, int, int], None]
# Calls a function of no arguments, in the thread that is to do such work.
Doer = Callable[[Callable[[], int]], int]


def run(
    jobs: Sequence[Job],
    upscalers: "Sequence[Upscaler]",
    scale: float | Size,
    *,
    workers: int | None = None,
    skip: Callable[[Job], bool] = lambda job: False,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Generator[Outcome]:
    """Upscales files, yielding what became of each, in order; never raises for a single file.

    upscalers: one per device; pictures go to whichever is free. workers: pictures under way at
    once, see `default_workers`. On a CPU they share the cores instead of each taking all; what a
    picture becomes does not depend on it. skip: jobs to leave, asked when their turn comes.
    journal: notes what is done. `progress(job, done, total)` counts the input pixels of a picture
    under way; any thread calls it.

    Leaving the iterator early, as Ctrl-C does, stops the pictures under way at their next tile.
    """
    for folder in {job.output.parent for job in jobs}:
        remove_leftovers(folder)
    workers = workers or default_workers(upscalers)
    workers = max(1, min(workers, len(jobs)))
    crew = Crew(upscalers, scale, workers, skip, journal, progress)
    with closing(crew), shutdown.calling(crew.close):
        under_way: deque[Future] = deque()
        for job in jobs:
            under_way.append(crew.begin(job))
            while under_way and (under_way[0].done() or len(under_way) >= 2 * workers):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def default_workers(upscalers: "Sequence[Upscaler]") -> int:
    """One per processor core, or two where GPUs compute, which workers wait for; two at least.

    On a CPU more of them only take more processor time (docs/folder.md).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    each = 1 if _on_cpu(upscalers) else 2
    return max(each * (cores or 1), 2 * len(upscalers))


def _on_cpu(upscalers: "Sequence[Upscaler]") -> bool:
    return all(each.device.type == "cpu" for each in upscalers)


@contextmanager
def _here(pixels: int) -> Iterator[Doer]:
    yield lambda make: make()


def do(
    job: Job,
    upscaler: "Upscaler",
    scale: float | Size,
    hold: Callable[[int], AbstractContextManager[Doer]] = _here,
    progress: Callable[[int, int], None] | None = None,
    computing: AbstractContextManager = streaming.ALWAYS,
) -> Outcome:
    """One job from file to file; its result is made and written in the context `hold(pixels)`, by
    what that gives, and made in the context `computing`.

    Raises what is no fault of the picture.
    """
    if job.problem:
        return failed(job, job.problem)
    began = time.perf_counter()
    try:
        try:
            image = files.read(job.input, scale=scale, limits=upscaler.limits)
        except files.AnimatedError:
            return _several(job, upscaler, scale, hold, progress, animation.convert)
        except files.PagesError:
            return _several(job, upscaler, scale, hold, progress, upscale_pages)
        size = result_size(scale, image.size)
        # What cannot be written is said before the work, not after it.
        _make_folder(job.output.parent)
        files.check_output(job.output, image.mode, size)

        def make() -> int:
            before = upscaler.redone_here
            streaming.upscale_to(job.output, upscaler, image, scale, progress, computing)
            return upscaler.redone_here - before

        try:
            with hold(size[0] * size[1]) as done_by:
                redone = done_by(make)
        except (LimitError, MemoryError, RuntimeError) as error:
            if not isinstance(error, LimitError) and not memory.ran_out(error):
                raise
            with hold(sys.maxsize) as done_by:  # perhaps those beside it had the memory: now alone
                redone = done_by(make)
    except Exception as error:
        lost = isinstance(error, DeviceLostError)
        if lost or (not isinstance(error, EspanError) and not memory.ran_out(error)):
            raise
        return failed(job, str(error) if isinstance(error, EspanError) else "out of memory")
    seconds = round(time.perf_counter() - began, 3)
    return Outcome(str(job.input), str(job.output), "done", None, *size, seconds, redone)


def _several(
    job: Job,
    upscaler: "Upscaler",
    scale: float | Size,
    hold: Callable[[int], AbstractContextManager[Doer]],
    progress: Callable[[int, int], None] | None,
    convert: Callable[..., Report],
) -> Outcome:
    """`do` for an animation or a TIFF of several pages, which has all cores to itself."""
    began = time.perf_counter()
    _make_folder(job.output.parent)
    made: list[Report] = []

    def make() -> int:
        before = upscaler.redone
        made.append(convert(job.input, job.output, upscaler, scale, progress))
        return upscaler.redone - before

    with hold(sys.maxsize) as done_by:
        redone = done_by(make)
    size = made[0].width, made[0].height
    seconds = round(time.perf_counter() - began, 3)
    return Outcome(str(job.input), str(job.output), "done", None, *size, seconds, redone)


class Crew:
    """Threads that take jobs by turns. They never keep the interpreter from ending."""

    def __init__(self, upscalers, scale: float | Size, workers: int, skip, journal, progress):
        self.scale, self.skip, self.journal = scale, skip, journal
        self.progress = progress or (lambda job, done, total: None)
        self.workers, self.cores = workers, torch.get_num_threads()
        room = (memory.available() or 0) // ROOM
        self.most = max(2 * HELD, min(HELD * self.cores, room))
        self.on_cpu = _on_cpu(upscalers)
        self._large: queue.SimpleQueue = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._idle: queue.SimpleQueue = queue.SimpleQueue()
        for i in range(workers):  # a worker uses whichever device has the fewest pictures
            self._idle.put(upscalers[i % len(upscalers)])
        self._stopping = threading.Event()
        self._held, self._changed = 0, threading.Condition()
        # More at once would only take memory: a core computes one, a GPU has two lanes.
        self._computing = threading.BoundedSemaphore(max(2, self.cores))
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        self._threads.append(threading.Thread(target=self._work_large, daemon=True))
        for thread in self._threads:
            thread.start()

    def begin(self, job: Job) -> Future:
        future: Future = Future()
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Ends the threads: at once those that wait, at its next tile one that computes."""
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
        _take_threads(max(1, self.cores // self.workers))
        while (taken := self._jobs.get()) is not None:
            job, future = taken
            try:
                self._go_on()
                future.set_result(self._do(job))
            except _Stopped:
                return  # and who waits for it, as the interpreter ends, waits on
            except BaseException as error:
                future.set_exception(error)

    def _do(self, job: Job) -> Outcome:
        if not job.problem and self.skip(job):
            return skipped(job)

        def progress(done: int, total: int) -> None:
            self._go_on()
            self.progress(job, done, total)

        source, upscaler = mark(job.input), self._idle.get()
        try:
            outcome = do(job, upscaler, self.scale, self._hold, progress, self._computing)
        finally:
            self._idle.put(upscaler)
        if self.journal and outcome.status == "done":
            self.journal.add(job, source)
        return outcome

    def _work_large(self) -> None:
        """The one thread that computes with all cores: OpenMP wants no second (`one_thread`)."""
        _take_threads(self.cores)
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

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise _Stopped

    @contextmanager
    def _hold(self, pixels: int) -> Iterator[Doer]:
        """Waits until a result of so many pixels may be in memory; gives who is to make it."""
        alone = pixels > (HELD if self.on_cpu else self.most)
        share = self.most if alone else pixels
        handed_over = alone and self.on_cpu and self.workers > 1  # else this thread has all cores
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping.is_set() or not self._held or self._held + share <= self.most
            )
            self._go_on()
            self._held += share
        try:
            yield self._by_all_cores if handed_over else lambda make: make()
        finally:
            with self._changed:
                self._held -= share
                self._changed.notify_all()


class _Stopped(BaseException):
    """Ends a picture that nobody waits for any more."""


def _take_threads(count: int) -> None:
    """Gives PyTorch's operators so many threads in the calling one."""
    torch.get_num_threads()  # whose first call in a thread would undo it, by what another has set
    torch.set_num_threads(count)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder}: could not be made: {reason(error)}") from error
