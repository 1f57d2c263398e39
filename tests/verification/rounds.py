"""Many threads that share one upscaler, in many rounds.

`python -m tests.verification.rounds` runs them from the command line.
"""

import argparse
import json
import sys

import numpy as np
import torch

from espan import Upscaler
from espan.backends.kernels import Plan
from tests.support.makers import noise, random_net
from tests.support.slots import with_slots
from tests.support.threads import in_threads

SIZES = [(5, 7), (16, 9), (9, 16), (12, 12), (1, 20), (23, 4)]
KINDS = [np.uint8, np.uint16, np.float32]


def upscalers() -> dict[str, Upscaler]:
    """An upscaler for each way in which threads share a network."""
    net = random_net(channels=4)
    half = Upscaler(net, device="cpu", dtype="bf16", tile=8)
    slots = Upscaler(net, device="cpu", dtype="fp32", backend="eager", tile=10)
    slots._runner.backends = {
        dtype: Plan(eager.net, "eager") for dtype, eager in slots._runner.backends.items()
    }
    with_slots(slots)
    # Any thread may capture the graph of a shape, at its second use.
    return {
        "whole images": Upscaler(net, device="cpu", dtype="fp32", tile=None),
        "tiles in bfloat16": half,
        "two stream slots": slots,
    }


def rounds(count: int = 250, threads: int = 8, seed: int = 0) -> dict[str, int]:
    """In each round, `threads` threads upscale an image each, of random size, dtype and channels,
    with the same upscaler. A mismatch is a result that is not bit-identical to that of a single
    thread. {"rounds": ..., "pictures": ..., "mismatches": ...}
    """
    random = np.random.default_rng(seed)
    images = [
        noise(*size, *channels, dtype=dtype, seed=seed + i)
        for i, size in enumerate(SIZES)
        for dtype in KINDS
        for channels in ((), (3,), (4,))
    ]
    ways = [*upscalers().values()]
    expected = [[up(image) for image in images] for up in ways]
    wrong: list[int] = []
    before = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    sys.setswitchinterval(1e-6)  # Python switches threads as often as possible
    try:
        for i in range(count):
            way, chosen = i % len(ways), random.integers(len(images), size=threads)

            def work(thread: int, way=way, chosen=chosen) -> None:
                which = chosen[thread]
                if not np.array_equal(ways[way](images[which]), expected[way][which]):
                    wrong.append(which)

            in_threads(work, threads)
    finally:
        torch.set_num_threads(before[0])
        sys.setswitchinterval(before[1])
    return {"rounds": count, "pictures": count * threads, "mismatches": len(wrong)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    found = rounds(**vars(parser.parse_args()))
    print(json.dumps(found))
    sys.exit(1 if found["mismatches"] else 0)
