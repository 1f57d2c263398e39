"""`bench/run.py --record`: publishes a record in `bench/results/`, named by its device."""

import re
from pathlib import Path

from bench.machine import ROOT
from bench.record import Record, UsageError
from bench.schema import check

RESULTS = ROOT / "bench/results"
# Words of a device's name that identify only the vendor or the kind of device.
COMMON = {"nvidia", "geforce", "tesla", "quadro", "gpu", "intel", "amd", "r", "tm", "cpu"}
COMMON |= {"processor", "generation"}
MEMORY = re.compile(r"\d+gb|hbm\d?e?|gddr\d+x?|sxm\d?")


def name_of(device: str, short: bool = True) -> str:
    """The name of a device's record: "NVIDIA H100 80GB HBM3" is "h100".

    Drops a processor's features, in parentheses. With short=False the name includes the memory,
    "h100_80gb_hbm3", for a second device that differs only in that.
    """
    device = re.sub(r" \([^()]*\)$", "", device).split("@")[0]
    words = [word for word in re.findall("[a-z0-9]+", device.lower()) if word not in COMMON]
    kept = [word for word in words if not (short and MEMORY.fullmatch(word))]
    return "_".join(kept or words) or "unknown"


def place(machine: dict, folder: Path | None = None) -> Path:
    """The path of this machine's record; replaces an older record of the same device.

    UsageError if the code is not exactly a commit, because such a record could not be used.
    """
    if not re.fullmatch("[0-9a-f]+", machine["commit"]):
        why = "there are uncommitted changes" if "+" in machine["commit"] else "there is no commit"
        raise UsageError(f"--record: a record must name its commit, but {why}")
    folder = folder or RESULTS
    path = folder / f"{name_of(machine['device'])}.json"
    if path.exists() and Record.read(path).machine.get("device") != machine["device"]:
        path = folder / f"{name_of(machine['device'], short=False)}.json"
    return path


def part_of(path: Path) -> Path:
    """The path of the unfinished record during the run."""
    return path.with_name(f"{path.name}.part")


def publish(record: Record, path: Path) -> None:
    """Saves and validates the record, then moves it to its final path."""
    record.save(part_of(path))
    check(part_of(path))
    part_of(path).replace(path)
