"""`python -m tests.verification.sanitize`: every op's kernels under NVIDIA's compute-sanitizer.

All tools run in parallel over a short list of calls, each with its own time limit. Before them,
racecheck runs over barriers.cu, a correct program. Races that it reports there are false positives;
races of the same form in kernels that arrive at barriers are listed as "unjudged". Prints a table.
Exit code 0: no other findings; 1: findings, or a part did not finish; 2: no GPU or no
compute-sanitizer.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# {implementation: cases per op and dtype}; few for Triton, which compiles each one first.
IMPLS = {"cuda": 12, "triton": 2}
# Ops with CUDA kernels whose warps arrive at barriers without waiting, by their machine code
# (tests/kernels/test_csrc.py). They are a group of their own beside "cuda".
ARRIVING = ("spab", "tail")
GROUPS = {"cuda": "cuda", "arriving": "cuda", "triton": "triton"}
RIGHT = Path(__file__).with_name("barriers.cu")
# Time limits of each tool, and of the programs that are compiled and run before.
SECONDS, COMPILE_SECONDS = 100, 70
# In addition to the ops' samples: several strips and segments, lines that several warps share.
MORE = {
    "conv3x3": [(2, 32, 32, 9, 130, "gate"), (1, 32, 32, 17, 257, "silu")],
    "spab": [(2, 32, 2, 9, 190), (1, 32, 3, 40, 121)],
    "dct_l1": [((2, 67, 150), None), ((2, 32, 264), 8)],
}
FOUND = 7
OPTIONS = (
    f"--error-exitcode={FOUND}",
    # Launchers report API errors themselves; torch causes some on purpose.
    "--report-api-errors=no",
    "--show-backtrace=no",
)
FIRST_PORT = 49152
# Each tensor is a separate allocation, so that accesses beyond it do not hit torch's cache.
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}

# compute-sanitizer prints a finding one space after the mark, and indents its place and, for races,
# the other access.
SAYS = re.compile(r"========= (\S.*)")
WHERE = re.compile(r"=========\s{2,}at (.*)")
WITH = re.compile(r"=========\s{2,}(and (?:Read|Write) access at .*?)(?: \[\d+ hazards?\])?$")
RACE = re.compile(r"(\w+): Race reported between (\w+) access at ")
UNJUDGED = "cannot be judged by this tool: "
SUMMARY = re.compile(r"(?:\w+ )?SUMMARY: (\d+) (?:error|hazard)")
# Messages about compute-sanitizer itself.
TROUBLE = re.compile(
    r"(?:Error: |Warning: )?(?:Target application|couldn't find|Could not connect|process didn't|"
    r"Internal|Device not supported|Unable to)"
)


@dataclass
class Part:
    """The outcome of one tool on one group of kernels: "clean", "unjudged", "findings" or
    "broken", with the reasons."""

    tool: str
    group: str
    outcome: str
    lines: list[str]
    seconds: float


def form(finding: str) -> str | None:
    """A race without its places, as "Error: Read, Write"; None for anything else."""
    if (race := RACE.match(finding)) is None:
        return None
    others = re.findall(r" and (Read|Write) access at ", finding)
    return f"{race[1]}: {', '.join([race[2], *sorted({*others})])}"


def read(text: str) -> tuple[list[str], list[str], list[int]]:
    """(findings, messages about the tool itself, numbers in its summaries)."""
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
        elif found and (other := WITH.match(line)):
            found[-1] += f" {other[1]}"
    return found, trouble, summaries


def counted(found: list[str], before: str = "") -> list[str]:
    return [f"{before}{n} x {what[:240]}" for what, n in Counter(found).most_common(20)]


def parse(text: str, code: int, forms: frozenset[str] = frozenset()) -> tuple[str, list[str]]:
    """(outcome, reasons) from compute-sanitizer's output and exit code.

    "clean" requires a summary of 0, no other finding and exit code 0. "unjudged" means that all
    findings are races of these forms.
    """
    found, trouble, summaries = read(text)
    unjudged = [what for what in found if form(what) in forms]
    found = [what for what in found if form(what) not in forms]
    more = sum(summaries) - len(unjudged)
    if found or more > 0:
        lines = counted(found) or [f"{more} counted only by the summary"]
        return "findings", lines + counted(unjudged, UNJUDGED)
    if code not in (0, FOUND if unjudged else 0) or trouble or not summaries:
        own = [line for line in text.splitlines() if line.strip() and not SAYS.match(line)]
        state = f"exit code {code}" + ("" if summaries else ", no summary")
        return "broken", [state, *trouble, *own[-3:]]
    return ("unjudged" if unjudged else "clean"), counted(unjudged, UNJUDGED)


def run_calls(group: str) -> int:
    """Calls each op's kernels of this group with a few small arguments; returns the call count."""
    import torch

    from espan_kernels import OPS

    calls, impl = 0, GROUPS[group]
    for op in OPS.values():
        if impl == "cuda" and (op.name in ARRIVING) != (group == "arriving"):
            continue
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


def calls_command(group: str) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "--calls", group]


def limited(command: list[str], seconds: float) -> tuple[str, int | None]:
    """(output, exit code) of a command; the exit code is None after a timeout."""
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
        # Kill the program under the tool too.
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0], None


def watch(tool: str, name: str, port: int, command: list[str], report: Path | None, seconds):
    """(output, exit code) of a tool on a command; `report`: a folder for the output."""
    options = [f"--tool={tool}", f"--port={FIRST_PORT + 16 * port}", *OPTIONS]
    text, code = limited([find("compute-sanitizer"), *options, *command], seconds)
    if report:
        (report / f"sanitize_{tool}_{name}.txt").write_text(text)
    return text, code


def check(
    tool: str,
    group: str,
    report: Path | None = None,
    forms: frozenset[str] = frozenset(),
    seconds: float = SECONDS,
) -> Part:
    """Runs one tool over the calls of one group; forms: races that racecheck cannot judge."""
    began = time.monotonic()
    port = TOOLS.index(tool) + len(TOOLS) * [*GROUPS].index(group)
    text, code = watch(tool, group, port, calls_command(group), report, seconds)
    judge = forms if (tool, group) == ("racecheck", "arriving") else frozenset()
    outcome, lines = parse(text, code or 0, judge)
    if code is None:
        lines = [f"not done after {seconds:g} s", *(lines if outcome == "findings" else [])]
        outcome = "findings" if outcome == "findings" else "broken"
    return Part(tool, group, outcome, lines, time.monotonic() - began)


def probe(report: Path | None = None) -> tuple[Part, frozenset[str]]:
    """(racecheck's outcome on the correct program, forms of the races that it reports there).

    The forms are empty if the program cannot be built or does not confirm its results.
    """
    began, forms = time.monotonic(), frozenset()
    nvcc = find("nvcc")
    if nvcc is None:
        return Part("racecheck", "right", "broken", ["no nvcc to build it"], 0.0), forms
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/{RIGHT.stem}"
        build = [nvcc, "-std=c++17", "-lineinfo", "-arch=native", "-o", program, str(RIGHT)]
        text, code = limited(build, COMPILE_SECONDS / 2)
        outcome, lines = "broken", text.splitlines()[-3:]
        if code == 0:
            port = len(TOOLS) * len(GROUPS)
            text, code = watch("racecheck", "right", port, [program], report, COMPILE_SECONDS / 2)
            forms = frozenset(map(form, read(text)[0])) - {None}
            outcome, lines = parse(text, 1 if code is None else code, forms)
    if outcome != "unjudged":
        forms = frozenset()
    return Part("racecheck", "right", outcome, lines, time.monotonic() - began), forms


def table(parts: list[Part]) -> str:
    rows = [f"{'tool':10} {'kernels':8} {'outcome':9} {'seconds':>7}"]
    for part in parts:
        rows.append(f"{part.tool:10} {part.group:8} {part.outcome:9} {part.seconds:7.1f}")
        rows += [f"    {line}" for line in part.lines]
    return "\n".join(rows)


def find(name: str) -> str | None:
    """The path of a program of the CUDA toolkit, or None."""
    homes = [home for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    folders = [f"{home}/{folder}" for home in homes for folder in ("bin", "compute-sanitizer")]
    every = [os.environ.get("PATH", os.defpath), *folders]
    return shutil.which(name, path=os.pathsep.join(every))


def missing() -> str | None:
    """The reason why nothing can run, or None."""
    import torch

    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    if find("compute-sanitizer") is None:
        return "no compute-sanitizer on PATH, in CUDA_HOME or in /usr/local/cuda"
    return None


def sanitize(report: Path | None = None) -> int:
    """Runs all tools over all kernels, prints the table and returns the exit code.

    report: a folder, created if missing, for the output of each tool.
    """
    if reason := missing():
        print(f"sanitize: {reason}")
        return 2
    if report:
        report.mkdir(parents=True, exist_ok=True)
    pairs = [(tool, group) for group in GROUPS for tool in TOOLS]
    with ThreadPoolExecutor(len(pairs)) as pool:
        probing = pool.submit(probe, report)
        limited(calls_command("triton"), COMPILE_SECONDS)
        right, forms = probing.result()
        parts = [*pool.map(lambda pair: check(*pair, report, forms), pairs)]
    print(table([right, *parts]))
    return int(any(part.outcome not in ("clean", "unjudged") for part in parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, help="folder for the output of each tool")
    parser.add_argument("--calls", choices=GROUPS, help="only make the calls, without any tool")
    arguments = parser.parse_args()
    if arguments.calls is None:
        return sanitize(arguments.report)
    calls = run_calls(arguments.calls)
    print(f"{calls} calls")
    return 0 if calls else 3


if __name__ == "__main__":
    sys.exit(main())
