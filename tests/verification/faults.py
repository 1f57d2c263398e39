"""Injects faults into runs, one at a time, at every possible place: no result may be wrong.

`python -m tests.verification.faults` prints a line of JSON.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from espan import DeviceLostError, EspanError, NonFiniteError, OutputError, Upscaler
from espan.execution.runner import Runner
from espan.images import files
from tests.support.makers import noise, random_net

OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
)
LOST = RuntimeError("CUDA error: an illegal memory access was encountered")
# Errors of a file system while an image is written.
ON_DISK = {
    "fsync": OSError(5, "Input/output error"),
    "open": OSError(13, "Permission denied"),
}


class Found:
    """Counts faults and lists those with a wrong result."""

    def __init__(self):
        self.faults, self.wrong = 0, []

    def add(self, name: str, right: bool) -> None:
        self.faults += 1
        if not right:
            self.wrong.append(name)


@contextmanager
def at_call(number: int, fault) -> Iterator[list[int]]:
    """At call `number` of the network, `fault(x, y)` returns its result or raises."""
    forward, calls = Runner._forward, [0]

    def faulty(runner, x, dtype):
        calls[0] += 1
        y = forward(runner, x, dtype)
        return fault(x, y) if calls[0] == number else y

    with mock.patch.object(Runner, "_forward", faulty):
        yield calls


def raising(error: Exception):
    def fault(_x, _y):
        raise error

    return fault


def numbers(image: np.ndarray, tile: int, found: Found) -> None:
    """Out of memory, a lost device, NaN and infinity at each tile of an image."""
    net = random_net(channels=4)
    full, half = (Upscaler(net, device="cpu", dtype=d, tile=tile) for d in ("fp32", "bf16"))
    exact, rounded = full(image), half(image)
    with at_call(0, None) as calls:
        half(image)
    for call in range(1, calls[0] + 1):
        for error in OUT_OF_MEMORY:
            with at_call(call, raising(error)):
                # Smaller tiles give the same result, up to the order of sums.
                near = np.abs(full(image).astype(int) - exact.astype(int)).max() <= 1
            found.add(f"{error!r} at tile {call}", near)
        with at_call(call, raising(LOST)):
            found.add(f"lost at tile {call}", _raises(DeviceLostError, full, image))
        for bad in (float("nan"), float("inf")):

            def spoilt(_x, y, bad=bad):
                y = y.clone()
                y[..., y.shape[2] // 2, y.shape[3] // 2] = bad  # not in the halo
                return y

            before = half.redone
            with at_call(call, spoilt):
                again = half(image)
            kept = (again == rounded) | (again == exact)
            found.add(f"{bad} at tile {call}", bool(kept.all()) and half.redone == before + 1)
            with at_call(call, spoilt):
                found.add(f"{bad} in fp32 at tile {call}", _raises(NonFiniteError, full, image))


def writing(found: Found) -> None:
    """A disk that fails at each step of writing a file, with and without an old file."""
    image = Image.fromarray(noise(20, 30, 3))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in files.WRITE_FORMATS:
            path = folder / f"result{suffix}"
            for old in (None, b"an old file"):
                for what, error in ON_DISK.items():
                    _reset(path, old)
                    with mock.patch.object(os, what, side_effect=error):
                        raised = _raises(OutputError, files.write, path, image)
                    right = raised and _state(folder) == _expected(path, old)
                    found.add(f"{suffix}: {what}", right)
                _reset(path, old)
                with mock.patch.object(Path, "replace", side_effect=OSError(28, "No space left")):
                    raised = _raises(OutputError, files.write, path, image)
                found.add(f"{suffix}: replace", raised and _state(folder) == _expected(path, old))
            _reset(path, None)


def _reset(path: Path, old: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if old is not None:
        path.write_bytes(old)


def _state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _expected(path: Path, old: bytes | None) -> dict[str, bytes]:
    return {} if old is None else {path.name: old}


def _raises(kind: type[EspanError], function, *arguments) -> bool:
    try:
        function(*arguments)
    except kind:
        return True
    except Exception:
        return False
    return False


def faults(tiles: int = 3) -> dict:
    """{"faults": ..., "wrong": ...}; computing faults on an image of `tiles` x `tiles` tiles."""
    found = Found()
    numbers(noise(20 * tiles, 20 * tiles - 3, 3), 20, found)
    writing(found)
    return {"faults": found.faults, "wrong": len(found.wrong), "which": found.wrong}


if __name__ == "__main__":
    logging.disable()  # most faults log a warning
    parser = argparse.ArgumentParser(
        prog="python -m tests.verification.faults", description=__doc__
    )
    parser.add_argument("--tiles", type=int, default=3)
    result = faults(parser.parse_args().tiles)
    print(json.dumps(result))
    sys.exit(1 if result["wrong"] else 0)
