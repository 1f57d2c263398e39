"""`python -m tests.verification.sanitize`: every op's kernels under NVIDIA's compute-sanitizer.

Each of its tools runs over a short list of calls, all of them at the same time, every one with a
time limit of its own. Prints a table. Exit code 0: nothing found; 1: something was found, or a
part did not finish; 2: there is no GPU or no compute-sanitizer.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# The kinds of kernels, and how many cases of each op and dtype: Triton's are compiled first.
IMPLS = {"cuda": 12, "triton": 2}
# Of each tool; and of compiling beforehand, which no tool watches.
SECONDS, COMPILE_SECONDS = 100, 70
# Beside the ops' own samples: several strips and segments, lines that several warps share.
MORE = {
    "conv3x3": [(2, 32, 32, 9, 130, "gate"), (1, 32, 32, 17, 257, "silu")],
    "spab": [(2, 32, 2, 9, 190), (1, 32, 3, 40, 121)],
    "dct_l1": [((2, 67, 150), None), ((2, 32, 264), 8)],
}
OPTIONS = (
    "--error-exitcode=7",
    # Launchers report errors of the API themselves; torch makes some on purpose.
    "--report-api-errors=no",
    "--show-backtrace=no",
)
FIRST_PORT = 49152
# A tensor is an allocation of its own: what lies beside it is not memory of torch's cache.
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}

# compute-sanitizer says one space after the mark what it found, and indents where.
SAYS = re.compile(r"========= (\S.*)")
WHERE = re.compile(r"=========\s{2,}at (.*)")
SUMMARY = re.compile(r"(?:\w+ )?SUMMARY: (\d+) (?:error|hazard)")
# What it says of itself.
TROUBLE = re.compile(
    r"(?:Error: |Warning: )?(?:Target application|couldn't find|Could not connect|process didn't|"
    r"Internal|Device not supported|Unable to)"
)


@dataclass
class Part:
    """How one tool ended on one kind of kernel: "clean", "findings" or "broken", and why."""

    tool: str
    impl: str
    outcome: str
    lines: list[str]
    seconds: float


def parse(text: str, code: int) -> tuple[str, list[str]]:
    """(outcome, why) of what compute-sanitizer wrote and its exit code.

    Clean is only what says so: a summary, of 0, nothing else, and exit code 0.
    """
    found, trouble, summaries = [], [], []
    for line in text.splitlines():
        if says := SAYS.match(line):
            what = says[1].strip()
            if summary := SUMMARY.match(what):
                summaries.append(int(summary[1]))
            elif TROUBLE.match(what):
                trouble.append(what)
            elif what != "COMPUTE-SANITIZER":
                found.append(what)
        elif found and (where := WHERE.match(line)) and " at " not in found[-1]:
            found[-1] += f" at {where[1]}"
    if found or any(summaries):
        times = Counter(found)
        lines = [f"{n} x {what[:160]}" for what, n in times.most_common(20)]
        return "findings", lines or [f"{sum(summaries)} by the summary alone"]
    if code or trouble or not summaries:
        own = [line for line in text.splitlines() if line.strip() and not SAYS.match(line)]
        state = f"exit code {code}" + ("" if summaries else ", no summary")
        return "broken", [state, *trouble, *own[-3:]]
    return "clean", []


def run_calls(impl: str) -> int:
    """Calls each op's kernels of this kind on a few small arguments. Returns how many calls."""
    import torch

    from espan_kernels import OPS

    calls = 0
    for op in OPS.values():
        for kernel in op.kernels:
            if kernel.run is None or not kernel.name.startswith(impl):
                continue
            for dtype in (torch.float16, torch.float32):
                every = [
                    op.make(case, dtype, "cuda") for case in [*MORE.get(op.name, []), *op.cases]
                ]
                taken = [args for args in every if kernel.refuses(args) is None][: IMPLS[impl]]
                for args in taken:
                    with torch.no_grad():
                        op(*args, impl=kernel.name)
                    torch.cuda.synchronize()
                calls += len(taken)
    return calls


def calls_command(impl: str) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "--calls", impl]


def limited(command: list[str], seconds: float) -> tuple[str, int | None]:
    """(what it wrote, its exit code; None: it ran out of time)"""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=seconds)[0], process.returncode
    except subprocess.TimeoutExpired:
        # The program under the tool as well.
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0], None


def check(tool: str, impl: str, report: Path | None = None, seconds: float = SECONDS) -> Part:
    """One tool over the calls of one kind of kernel; `report`: where what it wrote goes."""
    began = time.monotonic()
    port = FIRST_PORT + 16 * (TOOLS.index(tool) + len(TOOLS) * [*IMPLS].index(impl))
    options = [f"--tool={tool}", f"--port={port}", *OPTIONS]
    text, code = limited([find_sanitizer(), *options, *calls_command(impl)], seconds)
    if report:
        (report / f"sanitize_{tool}_{impl}.txt").write_text(text)
    outcome, lines = parse(text, code or 0)
    if code is None:
        lines = [f"not done after {seconds:g} s", *(lines if outcome == "findings" else [])]
        outcome = "findings" if outcome == "findings" else "broken"
    return Part(tool, impl, outcome, lines, time.monotonic() - began)


def table(parts: list[Part]) -> str:
    rows = [f"{'tool':10} {'kernels':8} {'outcome':9} {'seconds':>7}"]
    for part in parts:
        rows.append(f"{part.tool:10} {part.impl:8} {part.outcome:9} {part.seconds:7.1f}")
        rows += [f"    {line}" for line in part.lines]
    return "\n".join(rows)


def find_sanitizer() -> str | None:
    homes = [home for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    folders = [f"{home}/{name}" for home in homes for name in ("bin", "compute-sanitizer")]
    every = [os.environ.get("PATH", os.defpath), *folders]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(every))


def missing() -> str | None:
    """Why nothing can be run here; None: it can."""
    import torch

    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    if find_sanitizer() is None:
        return "no compute-sanitizer on PATH, in CUDA_HOME or in /usr/local/cuda"
    return None


def sanitize(report: Path | None = None) -> int:
    """All tools over all kernels; prints the table, returns the exit code.

    report: a folder, made if need be, for what each tool wrote.
    """
    if reason := missing():
        print(f"sanitize: {reason}")
        return 2
    if report:
        report.mkdir(parents=True, exist_ok=True)
    limited(calls_command("triton"), COMPILE_SECONDS)
    pairs = [(tool, impl) for impl in IMPLS for tool in TOOLS]
    with ThreadPoolExecutor(len(pairs)) as pool:
        parts = [*pool.map(lambda pair: check(*pair, report), pairs)]
    print(table(parts))
    return int(any(part.outcome != "clean" for part in parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, help="a folder for what each tool wrote")
    parser.add_argument("--calls", choices=IMPLS, help="only make the calls, without any tool")
    arguments = parser.parse_args()
    if arguments.calls is None:
        return sanitize(arguments.report)
    calls = run_calls(arguments.calls)
    print(f"{calls} calls")
    return 0 if calls else 3


if __name__ == "__main__":
    sys.exit(main())
