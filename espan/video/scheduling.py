"""What an encoder may not change: how the system schedules this process's threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The threads of this process, where there is Linux.
_TASKS = Path("/proc/self/task")


@contextmanager
def kept() -> Iterator[None]:
    """The calling thread is scheduled as before afterwards, and so is every thread started within.

    SVT-AV1, when root runs it, gives real time's highest priority to its threads and to the one
    that opens it, which hands it on to all that it starts later. Whatever spins there waiting for
    another thread keeps that one from the core: the network stands still, and so does the machine.
    """
    if not _TASKS.is_dir():
        yield
        return
    before, usual = _threads(), _policy(0)
    try:
        yield
    finally:
        for thread in (0, *(_threads() - before)):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                if _policy(thread) != usual:
                    os.sched_setscheduler(thread, *usual)


def _policy(thread: int) -> tuple:
    return os.sched_getscheduler(thread), os.sched_getparam(thread)


def _threads() -> set[int]:
    return {int(task.name) for task in _TASKS.iterdir()}
