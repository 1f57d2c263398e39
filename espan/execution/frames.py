"""Many frames in their order: upscaled a few at once, which share the cores, and counted."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import torch

from espan.options import Progress
from espan.system.ahead import ahead, in_order

# Frames computed at once on a CPU.
WORKERS = 4

Frame = TypeVar("Frame")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Report:
    """What became of an animation or a video: its frames, and their size."""

    frames: int
    width: int
    height: int


def in_turn(
    enlarge: Callable[[Frame], Made], frames: Generator[Frame], device: torch.device
) -> Generator[tuple[Frame, Made]]:
    """(frame, enlarge(frame)) of all frames; others are decoded and computed meanwhile."""
    cores = torch.get_num_threads()
    # On a CPU frames share the cores: two halves wait less for each other than a whole for its
    # parts. A GPU copies one frame while it computes another.
    workers = min(cores, WORKERS) if device.type == "cpu" else 2

    def share() -> None:
        torch.set_num_threads(max(1, cores // workers))  # of this thread, and of new ones

    try:
        with closing(in_order(enlarge, ahead(frames, depth=1), workers, share)) as pairs:
            yield from pairs
    finally:
        torch.set_num_threads(cores)


def told(
    frames: Iterator[Made], total: int, progress: Progress | None, done: int = 0
) -> Iterator[Made]:
    """The frames, each counted as it comes; `done` were there before."""
    for number, frame in enumerate(frames, done + 1):
        if progress is not None:
            progress(number, max(total, number))
        yield frame
