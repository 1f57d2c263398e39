"""How a signal ends a run: at once before its first step, after the step under way from then on."""

import signal
import threading
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """SIGINT and SIGTERM while a run is on; what they did before comes back at its end.

    Until `watch` they do what they did before: nothing has been computed that could be lost. From
    then on the first one sets `asked`, for the loop to stop after its step; any second one ends the
    process at once, even inside of a long call of PyTorch's.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        return self

    def watch(self) -> None:
        """A step begins. Outside of the main thread, to which signals come, it does nothing."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not from Python

    def _note(self, _number: int, _frame: object) -> None:
        self.asked = True
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
