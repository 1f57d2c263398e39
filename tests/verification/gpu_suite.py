"""The tests that need a GPU, in parts that fail by themselves.

`python -m tests.verification.gpu_suite` runs them.

Exit code 0: all passed; 1: some did not, or a part was not done in its time; 2: there is no GPU,
or no pytest.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What pytest's -k selects, and seconds. Triton's kernels are compiled as they come.
PARTS = {"cuda": ("cuda or engine", 240), "triton": ("triton", 540)}


def missing() -> str | None:
    """Why nothing can be run here; None: it can."""
    import torch

    if importlib.util.find_spec("pytest") is None:
        return "no pytest"
    return None if torch.cuda.is_available() else "no GPU that torch can use"


def suite(report: Path | None = None, parts=tuple(PARTS)) -> int:
    """The parts one after the other, pytest's output as it comes; returns the exit code.

    report: a folder, made if need be, for gpu_suite_PART.xml, in JUnit's form.
    """
    if reason := missing():
        print(f"gpu_suite: {reason}")
        return 2
    failed = False
    for part in parts:
        words, seconds = PARTS[part]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests/kernels/test_gpu.py",
            "-m",
            "gpu",
            "-k",
            words,
        ]
        command += ["-o", "addopts=-q", "-rf", "--tb=short", "-p", "no:cacheprovider"]
        if report:
            report.mkdir(parents=True, exist_ok=True)
            command.append(f"--junitxml={report.resolve() / f'gpu_suite_{part}.xml'}")
        try:
            failed |= subprocess.run(command, cwd=ROOT, timeout=seconds).returncode != 0
        except subprocess.TimeoutExpired:
            print(f"gpu_suite: {part}: not done after {seconds} s", flush=True)
            failed = True
    return int(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, help="a folder for the results in JUnit's form")
    parser.add_argument("--part", choices=PARTS, action="append", help="repeatable; default: all")
    arguments = parser.parse_args()
    sys.exit(suite(arguments.report, arguments.part or tuple(PARTS)))
