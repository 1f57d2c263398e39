"""Pictures arriving, waiting, under way and done. It knows no network and no web.

A job that nobody listens to any more is given up, and what is done is thrown away after a while:
files and memory are bounded by `Limits`.
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
# Outcomes remembered at most; one that failed has no files and would otherwise only be timed out.
REMEMBERED = 64


class FullError(Exception):
    """No room for another picture."""


class GivenUpError(Exception):
    """Raised inside a job, at its next tile, that nobody wants any more or that takes too long."""


@dataclass
class Asked:
    """What a client wants: a name to show, a model's key, a scale, a file suffix."""

    name: str
    model: str
    scale: float | Size
    suffix: str
    moving: str  # the suffix of an animation's file
    address: str = ""


@dataclass
class WebJob:
    """A picture, from its arrival to its end; its files are `id` and a suffix in `folder`."""

    asked: Asked
    folder: Path
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = "arriving"
    done: float = 0.0
    pace: float = 0.0  # of `done` in a second, as measured before; 0 where nothing was
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    error: str | None = None
    dropped: bool = False
    heard: float = field(default_factory=time.monotonic)  # when someone last listened
    ended: float = 0.0
    bytes: int = 0  # of the files that are kept
    shown: str = ".png"  # the suffix of what a browser shows of the input

    @property
    def source(self) -> Path:
        return self.folder / f"{self.id}.in"

    @property
    def preview(self) -> Path:
        return self.folder / f"{self.id}.before{self.shown}"

    @property
    def result(self) -> Path:
        return self.folder / f"{self.id}{self.asked.suffix}"

    def forget_files(self, *but: Path) -> None:
        for path in {self.source, self.preview, self.result} - {*but}:
            # What cannot be removed goes with the folder; the worker goes on to the next picture.
            with suppress(OSError):
                path.unlink(missing_ok=True)


Work = Callable[[WebJob, Callable[[int, int], None]], None]


class WebJobs:
    """A bounded queue before `limits.workers` threads that call `work(job, progress)`.

    `work` reads job.source, writes job.preview and job.result, sets job.size and
    calls `progress(done, total)`, which may raise GivenUpError. `folder` is the queue's own.
    """

    def __init__(self, work: Work, folder: Path, limits: Limits):
        self.work, self.folder, self.limits = work, folder, limits
        self.lost: DeviceLostError | None = None  # a GPU that failed: nothing works from then on
        self.closing = False  # may be set from a signal handler: it takes no lock
        self._jobs: dict[str, WebJob] = {}
        self._change = threading.Condition()
        self._threads = [
            threading.Thread(target=self._serve, name=f"espan-demo-{i}", daemon=True)
            for i in range(limits.workers)
        ]
        for thread in self._threads:
            thread.start()

    def open(self, asked: Asked) -> WebJob:
        """A place for a picture that is about to arrive; FullError if there is none."""
        with self._change:
            self._sweep()
            if sum(job.state in UNFINISHED for job in self._jobs.values()) >= self.limits.queue:
                raise FullError
            arriving = [job for job in self._jobs.values() if job.state == "arriving"]
            same = sum(job.asked.address == asked.address for job in arriving)
            if same >= self.limits.arriving:
                raise FullError
            job = WebJob(asked, self.folder)
            self._jobs[job.id] = job
            return job

    def submit(self, job: WebJob) -> None:
        """The picture has arrived."""
        with self._change:
            job.state, job.heard = "waiting", time.monotonic()
            self._change.notify()

    def get(self, id: str) -> WebJob | None:
        with self._change:
            self._sweep()
            return self._jobs.get(id)

    def ahead(self, job: WebJob) -> int:
        """Pictures that are computed before this one, those under way included."""
        with self._change:
            earlier = list(self._jobs.values())
            if job in earlier:
                earlier = earlier[: earlier.index(job)]
            return sum(each.state in ("waiting", "working") for each in earlier)

    def drop(self, job: WebJob) -> None:
        """Nobody wants it: its files go, at once or when its worker has noticed."""
        with self._change:
            self._drop(job)

    def close(self) -> None:
        """Gives up what is under way and waits for that."""
        self.closing = True
        with self._change:
            self._change.notify_all()
        for thread in self._threads:
            thread.join(timeout=30)

    def _drop(self, job: WebJob) -> None:
        self._jobs.pop(job.id, None)
        job.dropped = True
        if job.state != "working":
            job.forget_files()

    def _sweep(self) -> None:
        now, limits = time.monotonic(), self.limits
        held = ended = 0
        for job in list(self._jobs.values())[::-1]:
            if job.state in ("waiting", "working") and now - job.heard > limits.grace:
                self._drop(job)
            elif job.state not in UNFINISHED:
                held, ended, age = held + job.bytes, ended + 1, now - job.ended
                over = held > limits.keep_bytes or ended > REMEMBERED
                # A client needs a moment to come for what has just been done.
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
            job.dropped |= self.closing or now - job.heard > self.limits.grace
            if job.dropped:
                raise GivenUpError("given up")
            if now - began > self.limits.seconds:
                raise GivenUpError(f"stopped: it took more than {self.limits.seconds:g} s")

        error = None
        try:
            progress(0, 1)
            self.work(job, progress)
            job.bytes = job.result.stat().st_size
            if job.preview.is_file():
                job.bytes += job.preview.stat().st_size
        except GivenUpError as reason:
            error = str(reason)
        except DeviceLostError as lost:
            error, self.lost = "the server's GPU has failed; the server ends", lost
        except EspanError as refused:
            error = self._without_paths(str(refused), job)
        except Exception as unexpected:
            if memory.ran_out(unexpected):
                error = "out of memory; try a smaller picture"
            else:
                error = "internal error"
                log.exception("picture %s", job.id)
        with self._change:
            job.seconds, job.ended = time.monotonic() - began, time.monotonic()
            job.state, job.error = ("done" if error is None else "failed"), error
            job.forget_files(*((job.preview, job.result) if error is None else ()))
            if job.dropped:
                self._drop(job)
        self.closing |= self.lost is not None

    def _without_paths(self, message: str, job: WebJob) -> str:
        """A message for a client, who knows the picture by its own name and no path of ours."""
        for path in (job.source, job.preview, job.result):
            message = message.replace(str(path), job.asked.name)
        return message if str(self.folder) not in message else "it could not be written"
