"""Runs work without privileges, even if the tests run as root."""

import os
import traceback
from collections.abc import Callable

NOBODY = 65534


def as_nobody(work: Callable[[], int]) -> int:
    """The result of `work` in a forked process without privileges; 255 if it raised.

    Only root may be able to read the interpreter's files, so import the modules of `work` before.
    """
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os._exit(work())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
