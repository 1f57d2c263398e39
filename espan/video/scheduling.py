"""Undoes changes that an encoder makes to the scheduling of this process's threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The threads of this process, on Linux.
_TASKS = Path("/proc/self/task")


@contextmanager
def preserved() -> Iterator[None]:
    """On exit, restores the scheduling of the calling thread and of every thread started inside.

    Under root, SVT-AV1 gives the highest real-time priority to its threads and to the thread that
    opens it, and threads started later inherit it. Such a thread that spins while it waits for
    another one never yields the core: the network hangs, and so does the machine.
    """
    if not _TASKS.is_dir():
        yield
        return
    before, usual = _threads(), _policy(0)
    try:
        yield
    finally:
        for thread in (0, *(_threads() - before)):
            with suppress(ProcessLookupError):  # the thread has ended
                if _policy(thread) != usual:
                    os.sched_setscheduler(thread, *usual)


def _policy(thread: int) -> tuple:
    return os.sched_getscheduler(thread), os.sched_getparam(thread)


def _threads() -> set[int]:
    return {int(task.name) for task in _TASKS.iterdir()}
