"""Runs peers that compile, each in a separate process with a time limit, after all others.

A compiler cannot be interrupted from within, may take minutes and may kill its process. Rows
measured before that, in either process, are kept.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from bench import network, ops
from bench.budget import Budget
from bench.machine import ROOT
from bench.peers import compiles
from bench.record import Record, UsageError
from bench.timing import one_line

# Seconds below which a process is not started: Python, PyTorch and the device take most of them.
LEAST = 8.0


def contenders(names: list[str], device, requested: Callable, full: bool) -> list[tuple[str, str]]:
    """(op or "network", peer) of all requested peers that compile, in order."""
    found = []
    for name in names:
        if name == "network":
            impls = [impl for impl in network.contenders_on(device) if compiles(impl)]
        else:
            modes = ops.compile_modes(name, device) if full else ()
            impls = [f"compile {mode}" for mode in modes]
        found += [(name, impl) for impl in impls if requested(impl)]
    return found


def parts(
    names: list[str], device: torch.device, requested: Callable, full: bool, options, budget: Budget
) -> dict[str, Callable[[Record], None]]:
    """{name: a function that adds a peer's rows to a record}; options: command-line options."""
    peers = contenders(names, device, requested, full)

    def part(name: str, impl: str, among: int) -> Callable[[Record], None]:
        command = [sys.executable, str(ROOT / "bench/run.py"), name, "--impl", impl]
        command += ["--device", str(device), *options]
        return lambda record: measure(record, f"{name}: {impl}", impl, command, budget.share(among))

    return {
        f"{name}: {impl}": part(name, impl, len(peers) - i) for i, (name, impl) in enumerate(peers)
    }


def measure(record: Record, label: str, impl: str, command: list[str], limit: float) -> None:
    """Adds the rows of `impl` from the command's record, or the reason why some are missing."""
    if limit < LEAST:
        record.absent[label] = f"no time left to compile in ({max(limit, 0):.0f} s)"
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.json"
        ended = run([*command, "--json", str(kept), "--apart", f"{limit:.0f}"], limit)
        try:
            found = Record.read(kept)
        except UsageError:  # it ended before writing a record
            found = Record({}, {})
    for row in found.rows:
        if row.impl == impl:
            record.take(row)
    absent = {name: why for name, why in found.absent.items() if impl in name}
    record.absent |= absent
    if ended and not absent:
        record.absent[label] = ended


def run(command: list[str], limit: float) -> str | None:
    """Runs the command for at most `limit` seconds; returns None on success, else what happened."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"ended after {limit:.0f} s"
        finally:
            end(process)
        if code == 0:
            return None
        errors.seek(0)
        last = errors.read().strip().splitlines()[-1:]
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return one_line(Exception(": ".join([how, *last])))


def end(process: subprocess.Popen) -> None:
    """Kills the process, a session leader, and all processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
