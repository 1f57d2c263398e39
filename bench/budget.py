"""How long a run may take, and what ends it early without taking what it has measured along."""

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager

# Seconds that a peer may compile and be timed for, where nothing else limits it.
COMPILE_LIMIT = 150.0


class EndedEarlyError(BaseException):
    """Time is up, or the process was asked to end. Not an `Exception`, so that no peer's handler of
    errors swallows it. `code`: what the process should end with; None: it did what it could."""

    def __init__(self, reason: str, code: int | None = None):
        super().__init__(reason)
        self.reason, self.code = reason, code


class Budget:
    """Seconds from `began` on, by `clock`; None: no end."""

    def __init__(self, seconds: float | None, began: float, clock: Callable = time.monotonic):
        self.clock = clock
        self.end = math.inf if seconds is None else began + seconds

    def left(self) -> float:
        return self.end - self.clock()

    def share(self, among: int) -> float:
        """Seconds for the next of `among` peers that compile; what one leaves is the others'."""
        return min(COMPILE_LIMIT, self.left() / among)


@contextmanager
def ending(budget: Budget):
    """Within, SIGTERM, Ctrl-C and the budget's end raise `EndedEarlyError` where the work is."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
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
