"""The queue of images and its worker threads; independent of networks and of the web.

Jobs whose client has left are cancelled, and results are deleted after a while: `Limits` bounds
files and memory.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from espan.demo.limits import Limits
from espan.errors import DeviceLostError, EspanError
from espan.sizes import Size
from espan.system import memory

log = logging.getLogger("espan")

UNFINISHED = ("arriving", "waiting", "working")
# Finished jobs kept at most; failed ones have no files, so keep_bytes does not bound them.
REMEMBERED = 64


class FullError(Exception):
    """No room for another image."""


class CancelledError(Exception):
    """Raised inside a job at its next tile, after its client has left or its time is over."""


@dataclass
class JobRequest:
    """A client's request: a name to show, a model's key, a scale, a file suffix."""

    name: str
    model: str
    scale: float | Size
    suffix: str
    animation_suffix: str  # the suffix of an animation's file
    address: str = ""


@dataclass
class WebJob:
    """An image from upload to deletion; its files are `id` with suffixes in `folder`."""

    request: JobRequest
    folder: Path
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = "arriving"
    done: float = 0.0
    pace: float = 0.0  # estimated share of `done` per second, from an earlier image; 0 if unknown
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    error: str | None = None
    dropped: bool = False
    last_seen: float = field(default_factory=time.monotonic)  # time of the client's last request
    ended: float = 0.0
    bytes: int = 0  # of the files kept
    shown: str = ".png"  # suffix of the preview

    @property
    def source(self) -> Path:
        return self.folder / f"{self.id}.in"

    @property
    def preview(self) -> Path:
        return self.folder / f"{self.id}.before{self.shown}"

    @property
    def result(self) -> Path:
        return self.folder / f"{self.id}{self.request.suffix}"

    def delete_files(self, *kept: Path) -> None:
        for path in {self.source, self.preview, self.result} - {*kept}:
            # A file that cannot be deleted goes with the folder, and must not stop the worker.
            with suppress(OSError):
                path.unlink(missing_ok=True)


Work = Callable[[WebJob, Callable[[int, int], None]], None]


class WebJobs:
    """A bounded queue and `limits.workers` threads that call `work(job, progress)`.

    `work` reads job.source, writes job.preview and job.result, sets job.size and calls
    `progress(done, total)`, which may raise CancelledError. The queue owns `folder`.
    """

    def __init__(self, work: Work, folder: Path, limits: Limits):
        self.work, self.folder, self.limits = work, folder, limits
        self.lost: DeviceLostError | None = None  # set after a GPU failure: no job can run again
        self.closing = False  # a plain flag, because a signal handler sets it and cannot lock
        self._jobs: dict[str, WebJob] = {}
        self._change = threading.Condition()
        self._threads = [
            threading.Thread(target=self._serve, name=f"espan-demo-{i}", daemon=True)
            for i in range(limits.workers)
        ]
        for thread in self._threads:
            thread.start()

    def open(self, request: JobRequest) -> WebJob:
        """A job for an image that is about to arrive; FullError if the queue is full."""
        with self._change:
            self._sweep()
            if sum(job.state in UNFINISHED for job in self._jobs.values()) >= self.limits.queue:
                raise FullError
            arriving = [job for job in self._jobs.values() if job.state == "arriving"]
            same = sum(job.request.address == request.address for job in arriving)
            if same >= self.limits.arriving:
                raise FullError
            job = WebJob(request, self.folder)
            self._jobs[job.id] = job
            return job

    def submit(self, job: WebJob) -> None:
        """Queues a job whose image has arrived."""
        with self._change:
            job.state, job.last_seen = "waiting", time.monotonic()
            self._change.notify()

    def get(self, id: str) -> WebJob | None:
        with self._change:
            self._sweep()
            return self._jobs.get(id)

    def ahead(self, job: WebJob) -> int:
        """The number of images before this one, including the one being computed."""
        with self._change:
            earlier = list(self._jobs.values())
            if job in earlier:
                earlier = earlier[: earlier.index(job)]
            return sum(each.state in ("waiting", "working") for each in earlier)

    def drop(self, job: WebJob) -> None:
        """Cancels a job; its files are deleted now, or by its worker if it is running."""
        with self._change:
            self._drop(job)

    def close(self) -> None:
        """Cancels running jobs and waits for the workers."""
        self.closing = True
        with self._change:
            self._change.notify_all()
        for thread in self._threads:
            thread.join(timeout=30)

    def _drop(self, job: WebJob) -> None:
        self._jobs.pop(job.id, None)
        job.dropped = True
        if job.state != "working":
            job.delete_files()

    def _sweep(self) -> None:
        now, limits = time.monotonic(), self.limits
        held = ended = 0
        for job in list(self._jobs.values())[::-1]:
            if job.state in ("waiting", "working") and now - job.last_seen > limits.grace:
                self._drop(job)
            elif job.state not in UNFINISHED:
                held, ended, age = held + job.bytes, ended + 1, now - job.ended
                over = held > limits.keep_bytes or ended > REMEMBERED
                # A client needs a moment to fetch a result.
                if age > limits.keep_seconds or (over and age > limits.grace):
                    self._drop(job)

    def _next(self) -> WebJob | None:
        with self._change:
            self._sweep()
            waiting = [job for job in self._jobs.values() if job.state == "waiting"]
            if not waiting:
                self._change.wait(timeout=0.5)
                return None
            waiting[0].state = "working"
            return waiting[0]

    def _serve(self) -> None:
        while not self.closing:
            if job := self._next():
                self._do(job)

    def _do(self, job: WebJob) -> None:
        began = time.monotonic()

        def progress(done: int, total: int) -> None:
            job.done = done / total
            now = time.monotonic()
            job.dropped |= self.closing or now - job.last_seen > self.limits.grace
            if job.dropped:
                raise CancelledError("cancelled")
            if now - began > self.limits.seconds:
                raise CancelledError(f"stopped: it took more than {self.limits.seconds:g} s")

        error = None
        try:
            progress(0, 1)
            self.work(job, progress)
            job.bytes = job.result.stat().st_size
            if job.preview.is_file():
                job.bytes += job.preview.stat().st_size
        except CancelledError as reason:
            error = str(reason)
        except DeviceLostError as lost:
            error, self.lost = "the server's GPU has failed; the server stops", lost
        except EspanError as refused:
            error = self._without_paths(str(refused), job)
        except Exception as unexpected:
            if memory.ran_out(unexpected):
                error = "out of memory; try a smaller image"
            else:
                error = "internal error"
                log.exception("internal error at image %s", job.id)
        with self._change:
            job.seconds, job.ended = time.monotonic() - began, time.monotonic()
            job.state, job.error = ("done" if error is None else "failed"), error
            job.delete_files(*((job.preview, job.result) if error is None else ()))
            if job.dropped:
                self._drop(job)
        self.closing |= self.lost is not None

    def _without_paths(self, message: str, job: WebJob) -> str:
        """The message with the client's name of the image instead of the server's paths."""
        for path in (job.source, job.preview, job.result):
            message = message.replace(str(path), job.request.name)
        return message if str(self.folder) not in message else "the result could not be written"
