"""`python bench/train_step.py`: the cost of re-parameterised branches in a training step.

Medians of CPU time on one thread, with the plain network and the branches interleaved, for both
optimizers; and, on Linux, the peak memory of a process that trains a few steps of each.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from espan.networks.espan import ESPAN
from espan.training.config import TrainConfig
from espan.training.losses import loss_of
from espan.training.optim import optimizers_of
from espan.training.start import initialise

MUON = {"Adam": None, "Muon": TrainConfig.muon_lr}
WARM, STEPS = 2, 8


def step_of(rep: str | None, muon_lr: float | None):
    """Returns a function that trains one step on 16 patches of 48 x 48, x4, in bfloat16."""
    config = TrainConfig(data="data", out="out", rep=rep, muon_lr=muon_lr)
    torch.manual_seed(0)
    lr, hr = torch.rand(16, 3, 48, 48), torch.rand(16, 3, 192, 192)
    net = ESPAN(rep=rep)
    initialise(net, lr)
    net = net.to(memory_format=torch.channels_last)
    optimizers = optimizers_of(net, net, config)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            sr = net(lr.contiguous(memory_format=torch.channels_last))
        net.zero_grad()
        sum(loss_of(sr.float(), hr, config).values()).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def peak(rep: str | None) -> float:
    """Peak MiB of a process that trains three steps."""
    command = [sys.executable, __file__, "--peak", rep or "none"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rep", default="espan", help="preset or schema; default: espan")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        step = step_of(None if arguments.peak == "none" else arguments.peak, None)
        for _ in range(3):
            step()
        # Not ru_maxrss: a new process inherits its parent's.
        lines = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))
        return 0
    for name, muon_lr in MUON.items():
        steps = {rep: step_of(rep, muon_lr) for rep in (None, arguments.rep)}
        times: dict = {rep: [] for rep in steps}
        for _ in range(WARM + STEPS):
            for rep, step in steps.items():
                began = time.process_time()
                step()
                times[rep].append(time.process_time() - began)
        plain, rich = (1000 * statistics.median(t[WARM:]) for t in times.values())
        print(f"{name}: plain {plain:.0f} ms, {arguments.rep} {rich:.0f} ms, {rich / plain:.2f} x")
    plain, rich = peak(None), peak(arguments.rep)
    print(f"peak: plain {plain:.0f} MiB, {arguments.rep} {rich:.0f} MiB, {rich / plain:.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
