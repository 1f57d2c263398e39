"""Counted costs of the eager backends.

`python -m tests.support.cpu_costs > tests/backends/cpu_costs.json` saves them.

Instruction counts are not available everywhere (virtual machines hide the counters, valgrind lacks
AVX-512) and differ between processors. Operators and the bytes they touch are the same everywhere;
an extra pass, copy or conversion shows up as one.
"""

import json
import sys
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from espan.backends.cpu import CpuNetwork
from espan.networks.espan import ESPAN
from espan.networks.span import SPAN
from espan.networks.spanf import SPANF
from espan_kernels.op import OPS

HEIGHT, WIDTH = 48, 64
NETS = {
    "ESPAN": ESPAN,
    "SPAN of 28 channels": lambda: SPAN(channels=28),
    "SPAN-F": SPANF,
}


class Counting(TorchDispatchMode):
    """Counts operators that read or write memory, and the bytes they touch."""

    def __init__(self):
        super().__init__()
        self.operators: Counter = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        memory = {x.untyped_storage().data_ptr() for x in read}
        is_view = all(x.untyped_storage().data_ptr() in memory for x in made)
        name = func._schema.name.split("::")[1]
        if (is_view and not func._schema.is_mutable) or name.endswith("empty"):
            return out
        self.operators[name] += 1
        written = [x for x in made if x.untyped_storage().data_ptr() not in memory]
        self.bytes += sum(x.nbytes for x in read + written)
        return out


def counted(run) -> dict:
    """{operator: how often, "bytes per pixel": of the input}"""
    with torch.inference_mode(), Counting() as counting:
        run()
    found = dict(sorted(counting.operators.items()))
    return found | {"bytes per pixel": round(counting.bytes / (HEIGHT * WIDTH))}


def costs() -> dict[str, dict]:
    found = {}
    for name, make in NETS.items():
        net = make().eval().requires_grad_(False).to(memory_format=torch.channels_last)
        x = torch.rand(1, 3, HEIGHT, WIDTH).contiguous(memory_format=torch.channels_last)
        banded = CpuNetwork(net)
        banded(x)  # its feature maps are allocated from now on
        found[f"{name}, network"] = counted(lambda net=net, x=x: net(x))
        found[f"{name}, on a CPU"] = counted(lambda run=banded, x=x: run(x))
    cases = {
        "span_gate": (1, 32, HEIGHT, WIDTH),
        "conv3x3": (1, 32, 32, HEIGHT, WIDTH, "gate"),
        "conv9x9_head": (1, 32, HEIGHT, WIDTH, True),
        "spab": (1, 32, 3, HEIGHT, WIDTH),
        "tail": (1, 32, [(32, 3), (32, 1), (32, 1)], 4, HEIGHT, WIDTH, False, True),
        "dct2": ((1, 3, HEIGHT, WIDTH), None),
        "dct_l1": ((1, 3, HEIGHT, WIDTH), None),
    }
    for name, case in cases.items():
        op = OPS[name]
        args = op.make(case, torch.float32)
        op.reference(*args)  # fills the cache of DCT matrices
        found[f"{name}, eager"] = counted(lambda op=op, args=args: op.reference(*args))
    return found


if __name__ == "__main__":
    json.dump(costs(), sys.stdout, indent=1)
    print()
