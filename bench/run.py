"""`python bench/run.py`: how fast every op and the network are here, peers in the same run.

With no argument: all of it on the device at hand, at one size each, in less than three minutes on
two cores; `--full` takes every size, batches and pictures of up to 64 megapixels. Every contender's
result is checked before it is timed, contenders take turns, and who cannot take part is listed with
the reason.
"""

import argparse
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import machine, network, ops, report
from bench.record import Record, UsageError, absences, compared, table
from bench.timing import one_line
from espan.errors import DeviceError
from espan.system.devices import pick_device

# Seconds that each contender is timed for.
QUICK, USUAL, FULL = 0.4, 0.8, 2.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="OP|network", help="default: all")
    parser.add_argument("--impl", action="append", help="only those that begin so; repeatable")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--shapes", help="WIDTHxHEIGHT of the input, several with commas")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="fewer rounds")
    extent.add_argument("--full", action="store_true", help="all sizes: long on a CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="with results kept before")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="tests, sanitizers, bench and profiles of a GPU"
    )
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
    ops.check_names(arguments.names)
    names = arguments.names or [*ops.BENCHES, "network"]
    sizes = _sizes(arguments.shapes)
    device = pick_device(arguments.device)
    if device.type not in ops.DCT_BATCH:
        raise UsageError(f"device: expected cpu or cuda, got {arguments.device!r}")
    before = Record.read(arguments.compare) if arguments.compare else None

    began = time.perf_counter()
    record = Record(machine.facts(device), machine.limits(device), kept=arguments.json)
    if arguments.json:
        record.save(arguments.json)
    seconds = QUICK if arguments.quick else FULL if arguments.full else USUAL
    _say_where(record)
    for name in names:
        first = len(record.rows)
        options = device, sizes, arguments.impl, arguments.full, seconds
        try:
            if name == "network":
                network.run(record, *options)
            else:
                ops.run(record, name, *options)
        except Exception as error:  # the others' results are worth having
            record.absent[name] = one_line(error)
        _add_ratios(record.rows[first:])
        if record.rows[first:]:
            print(table(record.rows[first:]), "\n", flush=True)
    if arguments.json:
        record.save(arguments.json)
    if record.absent:
        print(f"not measured:\n{absences(record)}")
    if before:
        print(f"\ncompared with {arguments.compare}:\n{compared(record, before)}")
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 0 if record.rows else 1


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
    print("most seen here:", ", ".join(f"{k} {v:.2f} TFLOP/s" for k, v in rates.items()), end="")
    print(f", copy {copy:.0f} GB/s\n", flush=True)


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
