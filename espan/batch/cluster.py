"""Jobs done by the machines of a Ray cluster: actors that hold the network, files they all see."""

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from espan.batch.journal import Journal, Mark, mark
from espan.batch.planning import FileJob, Outcome, failed, skipped
from espan.batch.work import do
from espan.checkpoints.weights import Model
from espan.errors import DeviceError, DeviceLostError, escaped
from espan.options import UpscalerOptions
from espan.sizes import Size
from espan.system.atomic import remove_leftovers
from espan.system.extras import extra

if TYPE_CHECKING:
    from espan.upscaler import Upscaler

# How often a picture is tried again whose worker was lost. One that ends every worker it meets must
# not go round for ever.
RETRIES = 3
# Actors that share a GPU: while one computes, others decode and encode.
PER_GPU = 4
# Seconds to wait for the first worker: a cluster may have to start a machine.
PATIENCE = 600


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
    """`espan.batch.run` on Ray: outcomes come as they are ready, `progress` is never called.

    model, options: what each actor makes an `Upscaler` of. With device "auto" the actors share the
    cluster's GPUs, without any each takes a core. workers: actors at most. Joins the cluster that
    RAY_ADDRESS or `ray start` gives, else starts one on this machine. The picture of a lost worker
    is done again, three times at most. Every machine must see the files under the same names.

    DeviceError without Ray, or when no worker starts; what an `Upscaler` raises if one cannot be.
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
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    actors: list = []
    try:
        actors += _hire(ray, model, options, min(workers or len(left), len(left)))
        yield from _share_out(ray, actors, left, scale, journal)
    finally:
        for actor in actors:
            ray.kill(actor)
        if ours:
            ray.shutdown()
            for folder in folders:  # of those that Ctrl-C ended
                remove_leftovers(folder)


class Worker:
    """The actor. One picture at a time, so that a picture which ends its process harms no other."""

    def __init__(self, model: Model, options: UpscalerOptions):
        self.model, self.options = model, options
        self.upscaler: Upscaler | None = None

    def ready(self) -> None:
        """Loads the network before the first picture."""
        self._loaded()

    def _loaded(self) -> "Upscaler":
        """The upscaler. An actor that was restarted comes here with its next picture."""
        if self.upscaler is None:
            from espan.upscaler import Upscaler

            self.upscaler = Upscaler.from_options(self.model, self.options)
        return self.upscaler

    def upscale(self, job: FileJob, scale: float | Size) -> Outcome:
        try:
            return do(job, self._loaded(), scale)
        except DeviceLostError:
            # Only a new process can use the GPU again: Ray starts one, and tries the picture there.
            os._exit(1)


def _hire(ray, model: Model, options: UpscalerOptions, most: int) -> list:
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0)) if options.device in ("auto", "cuda") else 0
    count = gpus * PER_GPU if gpus else int(there.get("CPU", 1))
    needs = {"num_cpus": 1, "num_gpus": 1 / PER_GPU if gpus else 0}
    hired = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **needs)(Worker)
    return [hired.remote(model, options) for _ in range(min(count, most))]


def _share_out(
    ray, actors: list, jobs: list[FileJob], scale: float | Size, journal
) -> Generator[Outcome]:
    """A job for whoever is free: an actor is when it is ready, which some may never be."""
    waiting, free = deque(jobs), deque[Any]()
    working: dict[Any, tuple[FileJob, Any, Mark | None]] = {}
    starting = {actor.ready.remote(): actor for actor in actors}
    while waiting or working:
        if waiting and free:
            job, actor = waiting.popleft(), free.popleft()
            there = replace(job, input=job.input.absolute(), output=job.output.absolute())
            working[actor.upscale.remote(there, scale)] = job, actor, mark(job.input)
            continue
        tasks, _ = ray.wait([*starting, *working], timeout=None if working else PATIENCE)
        if not tasks:
            raise DeviceError(f"ray: no worker came in {PATIENCE} s; there is {_there(ray)}")
        (task,) = tasks
        if task in starting:
            try:
                _result(ray, task)
            except ray.exceptions.RayActorError as error:
                raise DeviceError(f"ray: a worker died as it started; {_there(ray)}") from error
            free.append(starting.pop(task))
            continue
        job, actor, source = working.pop(task)
        free.append(actor)
        try:
            outcome = _as_named(job, _result(ray, task))
        except ray.exceptions.RayActorError:
            outcome = failed(job, f"lost {RETRIES + 1} times with the worker that had it")
        if journal and outcome.status == "done":
            journal.add(job, source)
        yield outcome


def _result(ray, task):
    """What a task returned; what it raised is raised as it was there."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _as_named(job: FileJob, outcome: Outcome) -> Outcome:
    """The worker had absolute names; the caller gets his own."""
    there, here = escaped(str(job.input.absolute())), escaped(str(job.input))
    error = outcome.error and outcome.error.replace(there, here)
    return replace(outcome, input=str(job.input), output=str(job.output), error=error)


def _there(ray) -> str:
    facts = ray.cluster_resources()
    return f"{facts.get('CPU', 0):g} CPUs, {facts.get('GPU', 0):g} GPUs"
