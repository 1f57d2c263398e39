"""Time limits of a run, and early termination that keeps the rows measured so far."""

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager

# Seconds for compiling and timing a peer if no other limit applies.
COMPILE_LIMIT = 150.0


class EndedEarlyError(BaseException):
    """Time is up, or a signal asked the process to end. Not an `Exception`, so that no peer's error
    handler swallows it. `code`: the process's exit code; None: the run counts as complete.
    """

    def __init__(self, reason: str, code: int | None = None):
        super().__init__(reason)
        self.reason, self.code = reason, code


class Budget:
    """A time limit of `seconds` after `began`, measured by `clock`; None: no limit."""

    def __init__(self, seconds: float | None, began: float, clock: Callable = time.monotonic):
        self.clock = clock
        self.end = math.inf if seconds is None else began + seconds

    def left(self) -> float:
        return self.end - self.clock()

    def share(self, among: int) -> float:
        """Seconds for the next of `among` peers that compile; unused time goes to the others."""
        return min(COMPILE_LIMIT, self.left() / among)


@contextmanager
def ending(budget: Budget):
    """In this context SIGTERM, Ctrl-C and the end of the budget raise `EndedEarlyError`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return

    def out_of_time(*_):
        raise EndedEarlyError("no time left")

    def stop(number, _):
        raise EndedEarlyError("stopped", 128 + number)

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop}
    timed = math.isfinite(budget.end) and hasattr(signal, "setitimer")
    if timed:
        handlers[signal.SIGALRM] = out_of_time
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, max(budget.left(), 1e-3))
        yield
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
