"""Signals that stop a run: immediately before its first step, later after the current step."""

import signal
import threading
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Handles SIGINT and SIGTERM during a run, and restores the previous handlers at its end.

    Until `watch`, the previous handlers stay: there is nothing to lose yet. Then the first signal
    sets `requested`, and the loop stops after its step; a second signal ends the process
    immediately, even inside a long PyTorch call.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        return self

    def watch(self) -> None:
        """Installs the handlers, before the first step. A no-op outside the main thread."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not installed by Python

    def _note(self, _number: int, _frame: object) -> None:
        self.requested = True
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
