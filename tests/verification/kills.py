"""Stops runs over a folder at random moments and checks the files that they leave."""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, SIDE, WORKERS = 24, 20, 3
SUFFIXES = (".png", ".jpg", ".webp", ".tif")
HIDDEN = ".espan-"
# Seconds within which an interrupted run must end, even on a busy machine.
PROMPT = 30.0


def kills(count: int, seed: int = 0) -> dict:
    """`kill -9` of `espan upscale FOLDER --resume`, `count` times; each run resumes the last one.

    half_files: results that differ from those of an undisturbed run, checked after each kill and at
    the end. repeated: finished images that the next run computed again; repeated_at_most: the most
    of them after one kill, at most `in_flight` are allowed. leftovers: temporary files that the
    last run did not remove.
    """
    choose = random.Random(seed)
    found = {"kills": 0, "half_files": 0, "repeated": 0, "repeated_at_most": 0, "finished": 0}
    with _experiment(seed) as (folder, expected, whole_run):
        before: dict = {}
        while found["kills"] < count:
            run = Run(folder, signal.SIGKILL, choose.uniform(0, whole_run))
            after = _results(folder / "out")
            found["half_files"] += sum(expected[path] != data for path, (data, _) in after.items())
            again = sum(after[path][1] != made for path, (_, made) in before.items())
            found["repeated"] += again
            found["repeated_at_most"] = max(found["repeated_at_most"], again)
            before = after
            found["kills"] += run.code == -signal.SIGKILL
            if run.code == 0:
                found["finished"] += 1
                shutil.rmtree(folder / "out")
                before = {}
        Run(folder)
        last = _results(folder / "out")
        found["half_files"] += sum(last[path][0] != data for path, data in expected.items())
        return found | {"leftovers": _hidden_parts(folder), "in_flight": WORKERS}


def interrupts(count: int, seed: int = 0) -> dict:
    """Ctrl-C at random moments, `count` times; all counts should be 0.

    wrong_codes: runs with an exit code other than 130. tracebacks: runs that printed anything but
    the expected line; `said` is the first such output. half_files, leftovers: as in `kills`.
    slowest: the most seconds until the process had ended.
    """
    choose = random.Random(seed)
    names = ("interrupts", "wrong_codes", "tracebacks", "half_files", "leftovers")
    found = dict.fromkeys(names, 0) | {"slowest": 0.0, "said": ""}
    with _experiment(seed) as (folder, expected, whole_run):
        while found["interrupts"] < count:
            run = Run(folder, signal.SIGINT, choose.uniform(0, whole_run))
            left = {path: data for path, (data, _) in _results(folder / "out").items()}
            leftovers = _hidden_parts(folder)
            shutil.rmtree(folder / "out", ignore_errors=True)
            found["half_files"] += sum(expected[path] != data for path, data in left.items())
            if run.code == 0:
                continue
            found["interrupts"] += 1
            found["wrong_codes"] += run.code != 130
            if run.said != "espan: interrupted\n":
                found["tracebacks"] += 1
                found["said"] = found["said"] or run.said
            found["leftovers"] += leftovers
            found["slowest"] = max(found["slowest"], round(run.seconds_to_end, 3))
        return found


class Run:
    """One run in a new process, to its end or to a signal: its exit code and its output."""

    def __init__(self, folder: Path, number: int | None = None, after: float = 0, out: str = "out"):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["espan.upscaler", "espan.batch", "tqdm"])
        reader, writer = context.Pipe(duplex=False)
        log = folder / "log"
        arguments = (str(folder / "in"), str(folder / out), str(log), writer)
        process = context.Process(target=_upscale, args=arguments)
        process.start()
        writer.close()
        reader.recv()
        if number is not None:
            process.join(after)
            with suppress(ProcessLookupError):  # the process has ended already
                os.kill(process.pid, number)
        signalled = time.monotonic()
        process.join()
        self.code, self.said = process.exitcode, log.read_text()
        self.seconds_to_end = time.monotonic() - signalled


def _upscale(folder: str, out: str, log: str, started) -> None:
    from espan.cli import main

    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    arguments = ["-n", "espan-x2", "--device", "cpu", "--dtype", "fp32"]
    arguments += ["--jobs", str(WORKERS), "--resume", "--quiet"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore SIGINT
    try:
        started.send(None)
        code = main(["upscale", folder, "-o", out, *arguments])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run is done: ignore late signals
    except KeyboardInterrupt:  # before `main` began, or after it ended
        code = 130
        print("espan: interrupted", file=sys.stderr)
    sys.exit(code)


@contextmanager
def _experiment(seed: int) -> Iterator[tuple[Path, dict[str, bytes], float]]:
    """(folder with images in "in", {result: bytes}, seconds) of an undisturbed run."""
    with tempfile.TemporaryDirectory() as name:
        folder, values = Path(name), np.random.default_rng(seed)
        for i in range(IMAGES):
            path = folder / "in" / f"{i % 3}" / f"{i}{SUFFIXES[i % len(SUFFIXES)]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.integers(0, 256, (SIDE, SIDE + i, 3), np.uint8)).save(path)
        for out in ("first", "second"):  # the first also starts the fork server
            began = time.monotonic()
            if Run(folder, out=out).code:
                raise RuntimeError((folder / "log").read_text())
            seconds = time.monotonic() - began
        yield folder, {p: data for p, (data, _) in _results(folder / "second").items()}, seconds


def _results(folder: Path) -> dict[str, tuple[bytes, tuple]]:
    """{result: (bytes, identity of the file)}; a rewritten file has another identity."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith(HIDDEN):
            facts = path.stat()
            made = (facts.st_ino, facts.st_mtime_ns)
            found[str(path.relative_to(folder))] = path.read_bytes(), made
    return found


def _hidden_parts(folder: Path) -> int:
    return len([*folder.rglob(f"{HIDDEN}*.part")])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for experiment in (kills, interrupts):
        print(json.dumps(experiment(chosen.count, chosen.seed)), flush=True)
