"""`python bench/hot.py`: where the network's time goes, and Nsight Compute's view of its three
hottest kernels.

`--once` runs the network a few times and nothing else, for a profiler to look at.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.profiler import ProfilerActivity, profile

from bench import network
from bench.peers import prepared
from espan.backends.select import copy_to, with_backend
from espan.system.devices import pick_device

SECTIONS = ("SpeedOfLight", "Occupancy", "MemoryWorkloadAnalysis", "WarpStateStats")
RUNS = 3


def work(device: torch.device):
    """The network as an upscaler runs it, on a frame that becomes 4K."""
    width, height = (960, 540) if device.type == "cuda" else (480, 270)
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    run = with_backend(copy_to(network.build("ESPAN"), device, dtype), "auto")
    x = prepared(network.pictures(width, height), device, dtype)

    def call():
        with torch.inference_mode():
            run(x)

    return call


def hottest(device: torch.device) -> list[tuple[str, float]]:
    """(name, share of the time) of what takes longest, kernels on a GPU and operators elsewhere."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--once", action="store_true", help="run the network and end")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    if arguments.once:
        run = work(device)
        run()
        run()
        return 0
    names = [name for name, _ in hottest(device)[:3]]
    ncu = shutil.which("ncu") or shutil.which("/usr/local/cuda/bin/ncu")
    if device.type != "cuda" or ncu is None:
        print("Nsight Compute:", "not here" if device.type == "cuda" else "there is no GPU")
        return 0
    # Names up to their first argument or template: as Nsight Compute matches them.
    stems = {name.split("(")[0].split("<")[0].split("::")[-1].split()[-1] for name in names}
    command = [ncu, "--kernel-name", f"regex:{'|'.join(sorted(stems))}", "--launch-count", "9"]
    for section in SECTIONS:
        command += ["--section", section]
    return subprocess.run([*command, sys.executable, __file__, "--once"]).returncode


if __name__ == "__main__":
    sys.exit(main())
