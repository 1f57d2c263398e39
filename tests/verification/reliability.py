"""`python -m tests.verification.reliability`: tests the guarantees in docs/reliability.md.

Damaged image files, runs killed and interrupted at random moments, threads that share an upscaler,
injected faults, bugs planted in kernels and in the code behind the guarantees. `--long` takes an
hour on two cores; `--json FILE` saves the numbers. Exit code 1 if a guarantee was broken.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from bench import machine
from bench.machine import ROOT

# Counts that must be 0, of all parts.
NONE = (
    *("findings", "half_files", "leftovers", "wrong_codes", "tracebacks", "mismatches", "wrong"),
    *("believed", "lost", "shut_out", "hangs", "obeyed"),
)
# Folder with further damaged files, if it exists.
MALFORMED = Path(os.environ.get("ESPAN_SHARED", ROOT.parent / "shared")) / "data/malformed"


def parts(long: bool) -> dict[str, list[str]]:
    """{part: command that prints one JSON document}, run from the root of the repository."""
    kills = "import json; from tests.verification.kills import {0}; print(json.dumps({0}({1})))"
    count = [] if long else ["--count", "2"]
    many = "5000" if long else "100"
    saved = ["-m", "tests.verification.checkpoints"]
    found = {
        "damaged files": ["tests/verification/fuzz_files.py", "--seconds", "600" if long else "20"],
        "names": ["-m", "tests.verification.names"],
        "kills": ["-c", kills.format("kills", 200 if long else 10)],
        "interrupts": ["-c", kills.format("interrupts", 200 if long else 5)],
        "checkpoint flips": [*saved, "--flips", "5000" if long else "1000"],
        "checkpoint kills": [*saved, "--kills", "2000" if long else "200"],
        "half headers": ["-m", "tests.verification.half_headers"],
        "changed bytes": [*["-m", "tests.verification.fuzz_bytes"], "--examples", many],
        "threads": ["-m", "tests.verification.rounds", "--count", "1000" if long else "250"],
        "faults": ["-m", "tests.verification.faults", "--tiles", "5" if long else "3"],
        "planted bugs": ["-m", "tests.verification.mutations", *count],
    }
    if MALFORMED.is_dir():
        found = {"malformed files": ["tests/verification/fuzz_files.py", str(MALFORMED)], **found}
    return found


def run(command: list[str]) -> dict:
    """The counts of a command; "error" holds its stderr if it ended without counts."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {"error": " ".join(done.stderr.split())[-300:] or "it printed nothing"}
    if done.returncode and not broken(found):
        found["error"] = " ".join(done.stderr.split())[-300:]
    return found | {"seconds": round(time.monotonic() - began, 1)}


def broken(found: dict) -> bool:
    """Whether a part has a nonzero count in NONE, missed planted bugs, or failed."""
    if "error" in found or any(found.get(name) for name in NONE):
        return True
    pairs = [each for each in found.values() if isinstance(each, dict) and "planted" in each]
    return any(each["caught"] < each["planted"] for each in pairs)


def line(name: str, found: dict) -> str:
    flat = {k: v for k, v in found.items() if k not in ("seconds", "which") and v not in ({}, [])}
    counts = ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in flat.items())
    state = "BROKEN" if broken(found) else "kept"
    return f"{name:16} {state:6} {counts} ({found['seconds']:.0f} s)"


def _short(value) -> str:
    if isinstance(value, dict):
        return " / ".join(f"{key} {_short(each)}" for key, each in value.items())
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="200 kills, every planted bug: an hour")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the numbers")
    arguments = parser.parse_args(argv)
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        print(f"reliability: {arguments.json.parent}: no such folder", file=sys.stderr)
        return 2
    results = {}
    for name, command in parts(arguments.long).items():
        results[name] = run(command)
        print(line(name, results[name]), flush=True)
    if arguments.json:
        facts = machine.facts(torch.device("cpu"))
        kept = {"long": arguments.long, "machine": facts, "parts": results}
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    return int(any(broken(found) for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
