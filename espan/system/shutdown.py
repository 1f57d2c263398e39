"""Computations in progress when the interpreter ends or the process forks."""

import atexit
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# Seconds that the interpreter waits for the tiles in progress.
GRACE = 10.0

_changed = threading.Condition()
_computing = 0
_ending = False
_stops: set[Callable[[], None]] = set()


@contextmanager
def under_way(step: Callable[[int, int], None]) -> Iterator[Callable[[int, int], None]]:
    """Wraps `step(done, total)` for a computation that must stop when the interpreter ends.

    A daemon thread that returns from PyTorch after that would abort the process, so its next `step`
    blocks forever.
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
    """A context during which the end of the interpreter calls `stop` before it waits."""
    _stops.add(stop)
    try:
        yield
    finally:
        _stops.discard(stop)


@functools.cache
def prepare_for_forks() -> None:
    """Makes future forked children compute in one thread. Idempotent.

    The parent's OpenMP threads do not exist in the child, which would wait for them forever.
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
    """Resets the state in a forked child, which has no threads of its parent."""
    global _changed, _computing
    _changed, _computing = threading.Condition(), 0
    _stops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
