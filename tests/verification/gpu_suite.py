"""`python -m tests.verification.gpu_suite`: runs the tests that need a GPU, in independent parts.

Exit code 0: all passed; 1: tests failed or a part exceeded its time limit; 2: no GPU or no pytest.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# {part: (expression for pytest's -k, time limit in seconds)}; Triton compiles during the tests.
PARTS = {"cuda": ("cuda or engine", 240), "triton": ("triton", 540)}


def missing() -> str | None:
    """The reason why the suite cannot run, or None."""
    import torch

    if importlib.util.find_spec("pytest") is None:
        return "no pytest"
    return None if torch.cuda.is_available() else "no GPU that torch can use"


def suite(report: Path | None = None, parts=tuple(PARTS)) -> int:
    """Runs the parts one after another and returns the exit code.

    report: a folder, created if missing, for gpu_suite_PART.xml in JUnit format.
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
    parser.add_argument("--report", type=Path, help="folder for results in JUnit format")
    parser.add_argument("--part", choices=PARTS, action="append", help="repeatable; default: all")
    arguments = parser.parse_args()
    sys.exit(suite(arguments.report, arguments.part or tuple(PARTS)))
