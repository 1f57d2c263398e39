"""Compiles every Triton kernel for every architecture, without a GPU, and prints the costs.

python -m tests.support.compile_triton > tests/kernels/triton_costs.json
(append architecture numbers to select some)

Runs as a separate process, because Triton reads TRITON_INTERPRET at import. The unmodified
launchers run on cpu tensors with a driver that has a target but no device, so kernels are compiled
with the exact arguments, specialisations and options of a launch.
"""

import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from espan_kernels import OPS, machine, pack_weight
from tests.support.costs import as_text

ARCHITECTURES = (80, 90, 100, 120)
DTYPES = (torch.float16, torch.float32)
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Target:
    """The part of a driver needed for compilation; the device number is the architecture."""

    def __init__(self, architecture: int):
        self.architecture = architecture

    def get_current_target(self):
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self):
        return self.architecture

    def get_current_stream(self, device):
        return 0


def usage(compiled) -> dict:
    """Registers per thread, bytes of spills and local memory, bytes of shared memory, warps."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [CUOBJDUMP, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"\b([A-Z]+):(\d+)", text)}
    return {
        "registers": found["REG"],
        "spills": found["STACK"] + found["LOCAL"],
        "shared": compiled.metadata.shared,
        "warps": compiled.metadata.num_warps,
    }


def as_launched(arg):
    """Activations in channels_last and packed weights, for which the kernels are optimised."""
    if isinstance(arg, list):
        return [as_launched(item) for item in arg]
    if isinstance(arg, torch.Tensor) and arg.dim() == 4:
        if arg.shape[-2:] in ((1, 1), (3, 3), (9, 9)):
            return pack_weight(arg)
        return arg.contiguous(memory_format=torch.channels_last)
    return arg


def wanted(op, kernel, case, dtype, args) -> bool:
    """Whether to compile: both dtypes for an op's first case, one for the others."""
    if kernel.run is None:
        return False
    if any(refusal(*args) for refusal in kernel.refusals if refusal is not machine.needs_triton):
        return False
    usual = torch.float32 if op.name.startswith("dct") else torch.float16
    return case == op.cases[0] or dtype == usual


def measure(architectures: Iterable[int]) -> dict[str, dict[str, list]]:
    """{op, case and dtype: {architecture: the cost of each kernel launched}}"""
    launched = []
    run = JITFunction.run

    def compile_only(kernel, *args, **kwargs):
        compiled = run(kernel, *args, **{**kwargs, "warmup": True})
        launched.append({"kernel": kernel.__name__, **usage(compiled)})

    JITFunction.run = compile_only
    costs = {}
    for architecture in architectures:
        driver.set_active(Target(architecture))
        for op in OPS.values():
            for kernel, case, dtype in itertools.product(op.kernels, op.cases, DTYPES):
                args = [as_launched(arg) for arg in op.make(case, dtype)]
                if not wanted(op, kernel, case, dtype, args):
                    continue
                launched.clear()
                kernel.run(*args)
                key = f"{op.name} {kernel.name} {case} {str(dtype).removeprefix('torch.')}"
                if launched:
                    costs.setdefault(key, {})[f"sm_{architecture}"] = list(launched)
    return costs


if __name__ == "__main__":
    selected = [*map(int, sys.argv[1:])] or ARCHITECTURES
    print(as_text("triton", triton.__version__, measure(selected)))
