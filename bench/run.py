"""`python bench/run.py`: how fast every op and the network are here, peers in the same run.

With no argument: all of it on the device at hand, at one size each (two on a GPU); `--quick` ends
within 100 s, `--full` takes every size, batches and pictures of up to 64 megapixels. Every
contender's result is checked before it is timed, contenders take turns, those that compile come
last and have a time limit, and who cannot take part is listed with the reason.
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

# Seconds that each contender is timed for.
QUICK, USUAL, FULL = 0.4, 0.8, 2.0
# Seconds of `--quick`; importing PyTorch takes some more before.
QUICK_LIMIT = 90.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="OP|network", help="default: all")
    parser.add_argument("--impl", action="append", help="only those that begin so; repeatable")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--shapes", help="WIDTHxHEIGHT of the input, several with commas")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="fewer rounds, within 100 s")
    extent.add_argument("--full", action="store_true", help="all sizes: long on a CPU")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--json", type=Path, metavar="FILE", help="keep the results")
    kept.add_argument(
        "--record", action="store_true", help="keep them in bench/results, named by the device"
    )
    parser.add_argument("--compare", type=Path, metavar="FILE", help="with results kept before")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="tests, sanitizers, bench and profiles of a GPU"
    )
    # What bench/apart.py asks of its processes: only what compiles, for so many seconds.
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
        raise UsageError("--record: a record is of everything, without ops, --impl and --shapes")
    device = pick_device(arguments.device)
    if device.type not in ops.DCT_BATCH:
        raise UsageError(f"device: expected cpu or cuda, got {arguments.device!r}")
    before = Record.read(arguments.compare) if arguments.compare else None
    limit = QUICK_LIMIT if arguments.quick else None
    if arguments.apart:  # whatever becomes of the parent, this process ends
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
        print(f"\nthe record: {place}")
    elif record.kept and code is not None:
        print(f"bench: stopped; what was measured is in {record.kept}", file=sys.stderr)
    print(f"\n{time.monotonic() - began:.0f} s")
    return code or int(not record.rows)


def parts(arguments, device, sizes, budget: Budget) -> dict[str, Callable[[Record], None]]:
    """{name: a function that adds rows to a record}, in the order in which they are wanted."""
    names = arguments.names or [*ops.BENCHES, "network"]
    full = arguments.full
    seconds = QUICK if arguments.quick else FULL if full else USUAL

    def asked(impl: str) -> bool:
        return arguments.impl is None or impl.startswith(tuple(arguments.impl))

    def wanted(impl: str) -> bool:
        return asked(impl) and compiles(impl) == bool(arguments.apart)

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
    return found | apart.parts(names, device, asked, full, options, budget)


def measure(record: Record, parts: dict, budget: Budget) -> int | None:
    """Adds the rows of all parts to the record, as far as the budget goes, and prints them.

    One that fails stops no other. Returns the exit code of a run that was asked to end, else None.
    """
    left, first = dict(parts), 0
    try:
        with ending(budget):
            for name, part in parts.items():
                first = len(record.rows)
                try:
                    part(record)
                except Exception as error:  # the others' results are worth having
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
    """How many times as fast as eager: that of the same dtype, else that of fp32."""
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
    print(f"most seen here: {rates}, copy {copy:.0f} GB/s\n", flush=True)


def _sizes(text: str | None) -> list[tuple[int, int]] | None:
    if text is None:
        return None
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", part.strip())
        if not match:
            raise UsageError(f"shapes: expected WIDTHxHEIGHT, as 480x270,960x540, got {part!r}")
        found.append((int(match[1]), int(match[2])))
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
