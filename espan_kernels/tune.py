"""How a kernel is launched: the first row of its table, or on request the fastest one."""

import os
from collections.abc import Callable, Hashable

from espan_kernels import machine

# ESPAN_AUTOTUNE=1 times the rows of a table once for each kind of arguments, in the first call;
# without it nothing is timed at run time. Read at import.
AUTOTUNE = os.environ.get("ESPAN_AUTOTUNE") == "1" and not machine.INTERPRETED

_FASTEST: dict[Hashable, tuple] = {}


def milliseconds(run: Callable[[], None]) -> float:
    """The time of a launch; infinite where the GPU has not the resources for it."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    try:
        return do_bench(run)
    except OutOfResources:
        return float("inf")


def launch(kind: Hashable, table: list[tuple], run: Callable[[tuple], None]) -> None:
    """run(row) for the row of `table` that suits; `kind` names what its times depend on."""
    if not AUTOTUNE:
        return run(table[0])
    if kind not in _FASTEST:
        _FASTEST[kind] = min(table, key=lambda row: milliseconds(lambda: run(row)))
    return run(_FASTEST[kind])
