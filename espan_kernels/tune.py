"""Launch configurations: the first row of a kernel's table, or, with autotuning, the fastest."""

import os
from collections.abc import Callable, Hashable

from espan_kernels import machine

# ESPAN_AUTOTUNE=1 times all rows of a table in the first call for each kind of arguments. Read at
# import.
AUTOTUNE = os.environ.get("ESPAN_AUTOTUNE") == "1" and not machine.INTERPRETED

_FASTEST: dict[Hashable, tuple] = {}


def milliseconds(run: Callable[[], None]) -> float:
    """The time of a launch; infinite if it exceeds the GPU's resources."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    try:
        return do_bench(run)
    except OutOfResources:
        return float("inf")


def launch(kind: Hashable, table: list[tuple], run: Callable[[tuple], None]) -> None:
    """Calls run(row) with a row of `table`; timings are cached by `kind`."""
    if not AUTOTUNE:
        return run(table[0])
    if kind not in _FASTEST:
        _FASTEST[kind] = min(table, key=lambda row: milliseconds(lambda: run(row)))
    return run(_FASTEST[kind])
