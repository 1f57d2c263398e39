"""`python bench/run.py`: how long the network takes per input pixel, tile by tile size.

Runs the built-in network on the device at hand, in every precision it has, and prints a table:
median of a few runs on random pictures. "per useful pixel" counts the halo, which is computed and
thrown away: it is what a picture cut into such tiles costs.
"""

import argparse
import statistics
import time

import torch

from espan.machine import DTYPES, pick_device
from espan.runner import copy_to
from espan.weights import load

SIDES = (128, 192, 256, 384, 512, 768, 1024)


def seconds(net: torch.nn.Module, x: torch.Tensor, repeats: int) -> float:
    """Median time of one forward pass, the device idle before and after."""
    wait = torch.cuda.synchronize if x.device.type == "cuda" else lambda: None
    times = []
    with torch.inference_mode():
        net(x)
        for _ in range(repeats):
            wait()
            began = time.perf_counter()
            net(x)
            wait()
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="espan-x4")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="repeatable; default: all")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    device = pick_device(arguments.device)
    net = load(arguments.model)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, eager")
    print(f"{'dtype':6} {'side':>5} {'ms':>9} {'ns per pixel':>13} {'per useful pixel':>17}")
    for dtype in arguments.dtype or DTYPES:
        ready = copy_to(net, device, DTYPES[dtype])
        for side in SIDES:
            x = torch.rand(1, 3, side, side, device=device, dtype=DTYPES[dtype])
            x = x.contiguous(memory_format=torch.channels_last)
            t = seconds(ready, x, arguments.repeats)
            useful = (side - 2 * net.radius) ** 2
            row = f"{t * 1e3:9.1f} {t / side**2 * 1e9:13.0f} {t / useful * 1e9:17.0f}"
            print(f"{dtype:6} {side:5}{row}", flush=True)


if __name__ == "__main__":
    main()
