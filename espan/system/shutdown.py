"""Pictures under way when the interpreter ends, and processes that fork."""

import atexit
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# Seconds that the interpreter waits for the tiles under way.
GRACE = 10.0

_changed = threading.Condition()
_computing = 0
_ending = False
_stops: set[Callable[[], None]] = set()


@contextmanager
def under_way(step: Callable[[int, int], None]) -> Iterator[Callable[[int, int], None]]:
    """`step(done, total)` for a computation that must not go on when the interpreter has ended.

    A daemon thread that comes out of PyTorch then would abort the process; it stays in its next
    `step`, for good.
    """

    def watched(done: int, total: int) -> None:
        if _ending:
            _count(-1)
            threading.Event().wait()
        step(done, total)

    _count(1)
    try:
        yield watched
    finally:
        _count(-1)


def _count(change: int) -> None:
    global _computing
    with _changed:
        _computing += change
        if _ending:
            _changed.notify_all()


@contextmanager
def calling(stop: Callable[[], None]) -> Iterator[None]:
    """If the interpreter ends meanwhile, it calls `stop` before it waits for what is under way."""
    _stops.add(stop)
    try:
        yield
    finally:
        _stops.discard(stop)


@functools.cache
def prepare_for_forks() -> None:
    """From here on, forked children compute in one thread.

    Their parent's pool of threads is not forked with it, and OpenMP would wait for it for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@atexit.register
def _end() -> None:
    global _ending
    for stop in [*_stops]:
        stop()
    _ending = True
    with _changed:
        _changed.wait_for(lambda: not _computing, GRACE)


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _changed, _computing
    _changed, _computing = threading.Condition(), 0
    _stops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
