"""Runs jobs on a Ray cluster: actors hold the network, and all machines share the files."""

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from espan.batch.journal import Journal, Stamp, stamp_of
from espan.batch.planning import FileJob, Outcome, failed, skipped
from espan.batch.work import run_job
from espan.checkpoints.weights import Model
from espan.errors import DeviceError, DeviceLostError, escaped
from espan.options import UpscalerOptions
from espan.sizes import Size
from espan.system.atomic import remove_leftovers
from espan.system.extras import extra

if TYPE_CHECKING:
    from espan.upscaler import Upscaler

# Retries of an image after its worker died. An image that kills its workers must not loop forever.
RETRIES = 3
# Actors per GPU: while one computes, others decode and encode.
PER_GPU = 4
# Seconds until the first worker must start: a cluster may have to boot a machine.
START_TIMEOUT = 600


def run(
    jobs: Sequence[FileJob],
    model: Model,
    options: UpscalerOptions,
    scale: float | Size,
    *,
    workers: int | None = None,
    skip: Callable[[FileJob], bool] = lambda job: False,
    journal: Journal | None = None,
    progress: Callable | None = None,
) -> Generator[Outcome]:
    """`espan.batch.run` on Ray: yields outcomes as they complete; never calls `progress`.

    model, options: each actor constructs an `Upscaler` from them. With device "auto" the actors
    share the cluster's GPUs, or use a core each if there are none. workers: most actors to start.
    Connects to the cluster of RAY_ADDRESS or `ray start`, or starts one on this machine. Retries
    the image of a lost worker at most three times. Paths must be the same on all machines.

    Raises DeviceError without Ray, or if no worker starts; raises the errors of `Upscaler`.
    """
    ray, left = extra("ray", "--engine ray", "ray", DeviceError), []
    for job in jobs:
        if job.problem:
            yield failed(job, job.problem)
        elif skip(job):
            yield skipped(job)
        else:
            left.append(job)
    if not left:
        return
    folders = {job.output.parent for job in left}
    for folder in folders:
        remove_leftovers(folder)
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    actors: list = []
    try:
        actors += _start_actors(ray, model, options, min(workers or len(left), len(left)))
        yield from _distribute(ray, actors, left, scale, journal)
    finally:
        for actor in actors:
            ray.kill(actor)
        if ours:
            ray.shutdown()
            for folder in folders:  # temporary files of actors stopped by Ctrl-C
                remove_leftovers(folder)


class Worker:
    """The actor. Runs one image at a time: an image that kills the process affects no other."""

    def __init__(self, model: Model, options: UpscalerOptions):
        self.model, self.options = model, options
        self.upscaler: Upscaler | None = None

    def ready(self) -> None:
        """Loads the network before the first image."""
        self._loaded()

    def _loaded(self) -> "Upscaler":
        """The upscaler, created on first use, also in restarted actors."""
        if self.upscaler is None:
            from espan.upscaler import Upscaler

            self.upscaler = Upscaler.from_options(self.model, self.options)
        return self.upscaler

    def upscale(self, job: FileJob, scale: float | Size) -> Outcome:
        try:
            return run_job(job, self._loaded(), scale)
        except DeviceLostError:
            # Only a new process can use the GPU again: Ray restarts the actor and retries there.
            os._exit(1)


def _start_actors(ray, model: Model, options: UpscalerOptions, most: int) -> list:
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0)) if options.device in ("auto", "cuda") else 0
    count = gpus * PER_GPU if gpus else int(there.get("CPU", 1))
    needs = {"num_cpus": 1, "num_gpus": 1 / PER_GPU if gpus else 0}
    actor_class = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **needs)(Worker)
    return [actor_class.remote(model, options) for _ in range(min(count, most))]


def _distribute(
    ray, actors: list, jobs: list[FileJob], scale: float | Size, journal
) -> Generator[Outcome]:
    """Gives jobs to actors as they become ready; some actors may never start."""
    waiting, free = deque(jobs), deque[Any]()
    working: dict[Any, tuple[FileJob, Any, Stamp | None]] = {}
    starting = {actor.ready.remote(): actor for actor in actors}
    while waiting or working:
        if waiting and free:
            job, actor = waiting.popleft(), free.popleft()
            there = replace(job, input=job.input.absolute(), output=job.output.absolute())
            working[actor.upscale.remote(there, scale)] = job, actor, stamp_of(job.input)
            continue
        tasks, _ = ray.wait([*starting, *working], timeout=None if working else START_TIMEOUT)
        if not tasks:
            resources = _resources(ray)
            raise DeviceError(f"ray: no worker started in {START_TIMEOUT} s; have {resources}")
        (task,) = tasks
        if task in starting:
            try:
                _result(ray, task)
            except ray.exceptions.RayActorError as error:
                resources = _resources(ray)
                raise DeviceError(f"ray: a worker died at its start; have {resources}") from error
            free.append(starting.pop(task))
            continue
        job, actor, source = working.pop(task)
        free.append(actor)
        try:
            outcome = _with_caller_paths(job, _result(ray, task))
        except ray.exceptions.RayActorError:
            outcome = failed(job, f"its worker died, {RETRIES + 1} times")
        if journal and outcome.status == "done":
            journal.add(job, source)
        yield outcome


def _result(ray, task):
    """The result of a task; re-raises the task's own exception."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _with_caller_paths(job: FileJob, outcome: Outcome) -> Outcome:
    """Replaces the worker's absolute paths by the paths in `job`."""
    there, here = escaped(str(job.input.absolute())), escaped(str(job.input))
    error = outcome.error and outcome.error.replace(there, here)
    return replace(outcome, input=str(job.input), output=str(job.output), error=error)


def _resources(ray) -> str:
    facts = ray.cluster_resources()
    return f"{facts.get('CPU', 0):g} CPUs, {facts.get('GPU', 0):g} GPUs"
