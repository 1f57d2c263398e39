"""`python bench/hot.py`: profiles a frame, and runs Nsight Compute on its three hottest kernels.

`--once` runs one frame between profiler start and stop, after a warm-up: the self-test of the
kernels on a small sample, and a first frame.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.profiler import ProfilerActivity, profile

from bench import network
from espan.backends.select import backend_of
from espan.networks.deploy import copy_to
from espan.system.devices import pick_device

SECTIONS = ("SpeedOfLight", "Occupancy", "MemoryWorkloadAnalysis", "WarpStateStats")
RUNS = 3


def work(device: torch.device):
    """A function that runs the network as an upscaler does; on a GPU the output is 4K."""
    width, height = (960, 540) if device.type == "cuda" else (480, 270)
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    pixels = torch.from_numpy(network.images(width, height)).permute(0, 3, 1, 2).to(device)
    run = backend_of(copy_to(network.build("ESPAN"), device, dtype), "auto").bind(pixels)

    def call() -> None:
        with torch.inference_mode():
            run()

    return call


def hottest(device: torch.device) -> list[tuple[str, float]]:
    """(name, share of the time), longest first, of kernels on a GPU and operators elsewhere."""
    run = work(device)
    run()
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as found:
        for _ in range(RUNS):
            run()
        if on_gpu:
            torch.cuda.synchronize()

    def spent(event) -> float:
        return event.self_device_time_total if on_gpu else event.self_cpu_time_total

    events = [e for e in found.key_averages() if spent(e) > 0]
    if on_gpu:
        events = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=spent, reverse=True)
    total = sum(map(spent, events))
    for event in events[:12]:
        milliseconds = spent(event) / RUNS / 1e3
        print(f"{milliseconds:8.3f} ms  {event.count // RUNS:4}x  {event.key[:100]}")
    return [(event.key, spent(event) / total) for event in events]


def once(run: Callable[[], None], profiler) -> None:
    """Runs a frame under a profiler; profiler: an object like `torch.cuda.profiler`."""
    run()
    profiler.start()
    run()
    profiler.stop()


def _stem(name: str) -> str:
    """A kernel's name without namespaces, templates and arguments, as Nsight Compute matches it."""
    return re.search(r"(\w+)\s*(?:[<(]|$)", name.replace("(anonymous namespace)::", ""))[1]


def ncu_command(ncu: str, names: list[str], device: torch.device) -> list[str]:
    """The Nsight Compute command that profiles the named kernels in the frame of `once`."""
    stems = {_stem(name) for name in names}
    command = [ncu, "--profile-from-start", "off", "--launch-count", "9"]
    command += ["--kernel-name", f"regex:{'|'.join(sorted(stems))}"]
    for section in SECTIONS:
        command += ["--section", section]
    return [*command, sys.executable, __file__, "--once", "--device", str(device)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--once", action="store_true", help="run one frame under a profiler")
    arguments = parser.parse_args(argv)
    device = pick_device(arguments.device)
    if arguments.once:
        if device.type != "cuda":
            print("hot: --once needs a GPU", file=sys.stderr)
            return 2
        once(work(device), torch.cuda.profiler)
        torch.cuda.synchronize(device)
        return 0
    names = [name for name, _ in hottest(device)[:3]]
    ncu = shutil.which("ncu") or shutil.which("/usr/local/cuda/bin/ncu")
    if device.type != "cuda" or ncu is None:
        print("Nsight Compute:", "not found" if device.type == "cuda" else "needs a GPU")
        return 0
    return subprocess.run(ncu_command(ncu, names, device)).returncode


if __name__ == "__main__":
    sys.exit(main())
