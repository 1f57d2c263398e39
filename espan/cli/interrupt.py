"""Ctrl-C ends a command, even if a library turns the interrupt into another error."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt after Ctrl-C, also if a library raised another error instead.

    Imports PyTorch first and defers interrupts until then, because they would abort the process.
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is not signal.default_int_handler:
        yield
        return
    came, importing = threading.Event(), True

    def note(number, frame) -> None:
        came.set()
        if not importing:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        import torch  # noqa: F401

        importing = False
        if came.is_set():
            raise KeyboardInterrupt
        yield
    except Exception as error:
        if came.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
