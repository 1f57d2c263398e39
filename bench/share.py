"""`bench/run.py --record`: a record for everybody, in `bench/results/`, named by its device."""

import re
from pathlib import Path

from bench.machine import ROOT
from bench.record import Record, UsageError
from bench.schema import check

RESULTS = ROOT / "bench/results"
# What a device's name has besides: who sells it, and that it is a processor.
COMMON = {"nvidia", "geforce", "tesla", "quadro", "gpu", "intel", "amd", "r", "tm", "cpu"}
COMMON |= {"processor", "generation"}
MEMORY = re.compile(r"\d+gb|hbm\d?e?|gddr\d+x?|sxm\d?")


def name_of(device: str, short: bool = True) -> str:
    """The name of a device's record: "NVIDIA H100 80GB HBM3" is "h100".

    A processor's abilities, in brackets, are left out; not short: with the memory, for a second
    device that differs in nothing else: "h100_80gb_hbm3".
    """
    device = re.sub(r" \([^()]*\)$", "", device).split("@")[0]
    words = [word for word in re.findall("[a-z0-9]+", device.lower()) if word not in COMMON]
    kept = [word for word in words if not (short and MEMORY.fullmatch(word))]
    return "_".join(kept or words) or "unknown"


def place(machine: dict, folder: Path | None = None) -> Path:
    """Where the record of this machine goes: in the place of an older one of the same device.

    UsageError for a machine whose record could not be used: the code must be a commit's.
    """
    if not re.fullmatch("[0-9a-f]+", machine["commit"]):
        why = "changes that are not committed" if "+" in machine["commit"] else "no commit"
        raise UsageError(f"--record: the record must name the code it is of; there are {why}")
    folder = folder or RESULTS
    path = folder / f"{name_of(machine['device'])}.json"
    if path.exists() and Record.read(path).machine.get("device") != machine["device"]:
        path = folder / f"{name_of(machine['device'], short=False)}.json"
    return path


def part_of(path: Path) -> Path:
    """Where it is kept until the run has come to its end."""
    return path.with_name(f"{path.name}.part")


def publish(record: Record, path: Path) -> None:
    """Puts what was kept in its place, checked as its readers will."""
    record.save(part_of(path))
    check(part_of(path))
    part_of(path).replace(path)
