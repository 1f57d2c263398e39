"""Upscales frames of animations and videos in order, several at a time."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import torch

from espan.options import Progress
from espan.system.ahead import ahead, in_order

# Frames in parallel on a CPU.
WORKERS = 4

Frame = TypeVar("Frame")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Report:
    """The result of an animation or a video: its number of frames and their size."""

    frames: int
    width: int
    height: int


def upscale_in_order(
    enlarge: Callable[[Frame], Made], frames: Generator[Frame], device: torch.device
) -> Generator[tuple[Frame, Made]]:
    """Yields (frame, enlarge(frame)) in order; decodes and computes the next frames meanwhile."""
    # On a CPU frames share the cores: threads of different frames do not wait for each other. A
    # GPU copies one frame while it computes another.
    workers = workers_on_a_cpu() if device.type == "cpu" else 2
    with closing(work_in_order(enlarge, ahead(frames, depth=1), workers)) as pairs:
        yield from pairs


def workers_on_a_cpu() -> int:
    """How many frames a CPU works on at the same time."""
    return min(torch.get_num_threads(), WORKERS)


def work_in_order(
    work: Callable[[Frame], Made], frames: Generator[Frame], workers: int
) -> Generator[tuple[Frame, Made]]:
    """Yields (frame, work(frame)) in order, by `workers` threads, each with its share of cores."""
    cores = torch.get_num_threads()

    def share() -> None:
        torch.set_num_threads(max(1, cores // workers))  # for this thread and new ones

    try:
        with closing(in_order(work, frames, workers, share)) as pairs:
            yield from pairs
    finally:
        torch.set_num_threads(cores)


def with_progress(
    frames: Iterator[Made], total: int, progress: Progress | None, done: int = 0
) -> Iterator[Made]:
    """Yields the frames and reports progress for each; counts from `done`."""
    for number, frame in enumerate(frames, done + 1):
        if progress is not None:
            progress(number, max(total, number))
        yield frame
