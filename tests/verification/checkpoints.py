"""Damaged checkpoints of a training run, and checkpoints whose writer is killed.

    python -m tests.verification.checkpoints --flips 500 --kills 200

Prints one JSON document; exit code 1 if a damaged one was accepted or a written one was lost.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from espan.errors import EspanError
from espan.system.atomic import PARTS, remove_leftovers
from espan.training.checkpoints import Checkpoints
from espan.training.config import TrainConfig

# Bytes changed in a checkpoint at a time, and numbers in a checkpoint.
AT_ONCE, NUMBERS = (1, 2, 64), 200_000


def flips(number: int, seed: int = 0) -> dict:
    """Flips some bytes in the newest of two checkpoints, `number` times.

    refused: the older one was loaded. harmless: the flipped bytes are unused. believed: wrong
    numbers were loaded.
    """
    choose = random.Random(seed)
    found = {"flipped": 0, "refused": 0, "harmless": 0, "believed": 0}
    with tempfile.TemporaryDirectory() as name:
        kept = kept_in(Path(name))
        for step in (1, 2):
            kept.write(0, step, state(step, 500))
        path = kept.paths()[-1]
        whole = path.read_bytes()
        for _ in range(number):
            damaged = bytearray(whole)
            for place in choose.sample(range(len(whole)), choose.choice(AT_ONCE)):
                damaged[place] ^= choose.randrange(1, 256)
            path.write_bytes(damaged)
            try:
                back = kept.newest()
                step = back["step"] if back and equal(back, state(back["step"], 500)) else None
            except EspanError:  # damaged settings were accepted
                step = None
            found["flipped"] += 1
            found[{1: "refused", 2: "harmless"}.get(step, "believed")] += 1
    return found


def kills(number: int, seed: int = 0) -> dict:
    """`kill -9` of a process that writes one checkpoint after another, `number` times.

    inside: kills while a file was being written. lost: kills after which the newest checkpoint was
    neither the last one written nor the next, or had other numbers. leftovers: temporary files that
    the next run does not remove.
    """
    choose = random.Random(seed)
    found = {"kills": 0, "inside": 0, "lost": 0, "leftovers": 0}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["espan.training.checkpoints"])
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        kept, last, seconds = kept_in(out), 0, _seconds_of_a_write()
        for _ in range(number):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_write, args=(name, last + 1, writer))
            process.start()
            writer.close()
            reader.recv()  # the process has started
            time.sleep(choose.uniform(0, 3 * seconds))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            written = [last, *_rest(reader)][-1]
            found["kills"] += 1
            found["inside"] += bool([*out.glob(PARTS)])
            remove_leftovers(out)
            found["leftovers"] += len([*out.glob(PARTS)])
            back = kept.newest()
            last = back["step"] if back else 0
            whole = not back or equal(back, state(last, NUMBERS))
            found["lost"] += not (whole and last in (written, written + 1))
    return found


def state(step: int, numbers: int) -> dict:
    """A state like that of a run, with different numbers at each step."""
    numbered = torch.arange(numbers, dtype=torch.float32) + step
    adam = {"state": {0: {"step": step, "exp_avg": numbered / 2}}, "param_groups": [{"lr": 1e-3}]}
    net = {"conv_1.weight": numbered, "conv_1.bias": numbered[:9].clone()}
    return {"net": net, "average": {"module": -numbered}, "optimizers": [adam], "precision": {}}


def equal(found, expected) -> bool:
    """Whether `found` equals `expected`, to the bit; `found` may have further keys."""
    if isinstance(expected, Tensor):
        return isinstance(found, Tensor) and torch.equal(found, expected)
    if isinstance(expected, dict):
        return all(key in found and equal(found[key], each) for key, each in expected.items())
    if isinstance(expected, list):
        pairs = zip(found, expected, strict=True)
        return len(found) == len(expected) and all(equal(*pair) for pair in pairs)
    return found == expected


def kept_in(out: Path) -> Checkpoints:
    return Checkpoints(out, TrainConfig(data="data", out="out", steps=10**6))


def _write(out: str, first: int, pipe) -> None:
    kept = kept_in(Path(out))
    pipe.send(0)
    for step in count(first):
        kept.write(0, step, state(step, NUMBERS))
        pipe.send(step)


def _seconds_of_a_write() -> float:
    with tempfile.TemporaryDirectory() as name:
        kept, began = kept_in(Path(name)), time.monotonic()
        for step in range(1, 11):
            kept.write(0, step, state(step, NUMBERS))
        return (time.monotonic() - began) / 10


def _rest(reader) -> list[int]:
    """The remaining messages of a process that has ended."""
    sent = []
    while True:
        try:
            sent.append(reader.recv())
        except EOFError:
            return sent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.disable()  # every damaged checkpoint logs a line
    found = {}
    if chosen.flips:
        found |= flips(chosen.flips, chosen.seed)
    if chosen.kills:
        found |= kills(chosen.kills, chosen.seed)
    print(json.dumps(found))
    return int(bool(found.get("believed") or found.get("lost") or found.get("leftovers")))


if __name__ == "__main__":
    sys.exit(main())
