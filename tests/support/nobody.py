"""Work done by an account without rights, also where the tests run as root, who may do all."""

import os
import traceback
from collections.abc import Callable

NOBODY = 65534


def as_nobody(work: Callable[[], int]) -> int:
    """What `work` returns in a forked process that gave its rights up; 255 if it raised.

    The interpreter itself may lie where only root can read: what `work` imports is imported before.
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
