"""`python bench/run.py`: times every op and the network, and their peers in the same run.

Without arguments: everything on the available device, at one size each (two on a GPU). `--quick`
ends within 100 s; `--full` runs every size, batches, and images of up to 64 megapixels. Each
contender's result is checked before timing, contenders are interleaved, those that compile come
last and have a time limit, and absent ones are listed with the reason.
"""

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import apart, machine, network, ops, report, share, upscaler
from bench.budget import Budget, EndedEarlyError, ending
from bench.peers import compiles
from bench.record import Record, UsageError, absences, compared, table
from bench.timing import one_line
from espan.errors import DeviceError
from espan.system.devices import pick_device

# Seconds of timing per contender.
QUICK, USUAL, FULL = 0.4, 0.8, 2.0
# Seconds of `--quick`, without the import of PyTorch.
QUICK_LIMIT = 90.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="OP|network", help="default: all")
    parser.add_argument("--impl", action="append", help="only with this prefix; repeatable")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--shapes", help="WIDTHxHEIGHT of the input, comma-separated")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="fewer rounds, within 100 s")
    extent.add_argument("--full", action="store_true", help="all sizes: long on a CPU")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--json", type=Path, metavar="FILE", help="save the results")
    kept.add_argument(
        "--record", action="store_true", help="save them in bench/results, named by the device"
    )
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with saved results")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="run tests, sanitizers, bench, profiles on a GPU"
    )
    # For the processes of bench/apart.py: only peers that compile, with a time limit.
    parser.add_argument("--apart", type=int, metavar="SECONDS", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    try:
        if arguments.report:
            wanted = "cuda" if arguments.device == "auto" else arguments.device
            return report.write(arguments.report, pick_device(wanted))
        return _bench(arguments)
    except (UsageError, DeviceError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _bench(arguments) -> int:
    began = time.monotonic()
    ops.check_names(arguments.names)
    sizes = _sizes(arguments.shapes)
    if arguments.record and (arguments.names or arguments.impl or sizes):
        raise UsageError("--record: cannot be combined with ops, --impl or --shapes")
    device = pick_device(arguments.device)
    if device.type not in ops.DCT_BATCH:
        raise UsageError(f"device: expected cpu or cuda, got {arguments.device!r}")
    before = Record.read(arguments.compare) if arguments.compare else None
    limit = QUICK_LIMIT if arguments.quick else None
    if arguments.apart:  # end this process even if the parent dies
        signal.alarm(arguments.apart + 1)
        limit = None

    facts = machine.facts(device)
    place = share.place(facts) if arguments.record else None
    record = Record(facts, {}, kept=share.part_of(place) if place else arguments.json)
    if record.kept:
        record.save(record.kept)
    if not arguments.apart:
        record.limits = machine.limits(device)
    _say_where(record)
    budget = Budget(limit, began)
    code = measure(record, parts(arguments, device, sizes, budget), budget)
    if record.kept:
        record.save(record.kept)
    if record.absent:
        print(f"not measured:\n{absences(record)}")
    if before:
        print(f"\ncompared with {arguments.compare}:\n{compared(record, before)}")
    if place and code is None:
        share.publish(record, place)
        print(f"\nrecord: {place}")
    elif record.kept and code is not None:
        print(f"bench: stopped; results so far are in {record.kept}", file=sys.stderr)
    print(f"\n{time.monotonic() - began:.0f} s")
    return code or int(not record.rows)


def parts(arguments, device, sizes, budget: Budget) -> dict[str, Callable[[Record], None]]:
    """{name: a function that adds rows to a record}, in order of execution."""
    names = arguments.names or [*ops.BENCHES, "network"]
    full = arguments.full
    seconds = QUICK if arguments.quick else FULL if full else USUAL

    def requested(impl: str) -> bool:
        return arguments.impl is None or impl.startswith(tuple(arguments.impl))

    def wanted(impl: str) -> bool:
        return requested(impl) and compiles(impl) == bool(arguments.apart)

    found = {
        name: lambda record, name=name: ops.run(record, name, device, sizes, wanted, full, seconds)
        for name in names
        if name != "network"
    }
    if "network" in names:
        found |= network.parts(device, sizes, wanted, full, seconds)
    if arguments.apart:
        return found
    if "network" in names:
        with suppress(ImportError):  # it needs Pillow
            found |= upscaler.parts(device, network.build("ESPAN"), sizes, full, seconds)
    extent = ["--quick"] if arguments.quick else ["--full"] if full else []
    options = [*extent, *(["--shapes", arguments.shapes] if sizes else [])]
    return found | apart.parts(names, device, requested, full, options, budget)


def measure(record: Record, parts: dict, budget: Budget) -> int | None:
    """Adds the rows of all parts to the record, within the budget, and prints them.

    A failing part does not stop the others. Returns the exit code if the run was stopped by a
    signal, else None.
    """
    left, first = dict(parts), 0
    try:
        with ending(budget):
            for name, part in parts.items():
                first = len(record.rows)
                try:
                    part(record)
                except Exception as error:  # continue with the other parts
                    record.absent[name] = one_line(error)
                del left[name]
                _add_ratios(record.rows)
                if record.rows[first:]:
                    print(table(record.rows[first:]), "\n", flush=True)
    except EndedEarlyError as early:
        record.absent |= dict.fromkeys(left, early.reason)
        _add_ratios(record.rows)
        if record.rows[first:]:
            print(table(record.rows[first:]), "\n", flush=True)
        return early.code
    return None


def _add_ratios(rows) -> None:
    """Sets each row's speed relative to eager of the same dtype, else of fp32."""
    for row in rows:
        eager = [r for r in rows if (r.op, r.shape) == (row.op, row.shape) and "eager" in r.impl]
        same = [r for r in eager if r.dtype == row.dtype] or eager
        if same:
            row.ratio = same[0].median / row.median


def _say_where(record: Record) -> None:
    facts = record.machine
    print(f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}", end="")
    print(f", triton {facts['triton']}, commit {facts['commit']}, load {facts['busy']}")
    copy = record.limits.get("copy", 0) / 1e9
    rates = {k: v / 1e12 for k, v in record.limits.items() if k != "copy"}
    rates = ", ".join(f"{k} {v:.2f} TFLOP/s" for k, v in rates.items())
    print(f"measured limits: {rates}, copy {copy:.0f} GB/s\n", flush=True)


def _sizes(text: str | None) -> list[tuple[int, int]] | None:
    if text is None:
        return None
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", part.strip())
        if not match:
            raise UsageError(f"shapes: expected WIDTHxHEIGHT like 480x270,960x540, got {part!r}")
        found.append((int(match[1]), int(match[2])))
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
