"""`python bench/wgmma.py FILE`: builds, checks and times the kernels for compute capability 9.0 in
under four minutes; writes the times to FILE as JSON.

First checks them in a build that ends deadlocks (ESPAN_CUDA_TRAP), which serialises wgmma; then
checks and times them in the normal build. Each step is a process with a time limit; a failure ends
the run. Exit code 0: success; 1: a step failed; 2: no GPU of compute capability 9.0.
"""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired, run

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import machine, network, timing
from bench.record import Record
from espan.backends.cuda import launch_of, needs_scratch
from espan.backends.kernels import Plan
from espan.backends.program import Block, Fused, Head, Tail
from espan_kernels import OPS, layout
from espan_kernels.conv3x3 import sample as conv3x3
from espan_kernels.conv9x9_head import sample as head
from espan_kernels.machine import WGMMA_CAPABILITY
from espan_kernels.spab import sample as spab
from espan_kernels.tail import kernel_wgmma as tail_kernel
from espan_kernels.tail import sample as tail

IMPLS = ("cuda", "cuda_wgmma")
NETWORKS = ("ESPAN", "SPAN-48", "SPAN-F")
SIZES = ((480, 270), (960, 540), (1920, 1080))
SAMPLES = {
    "conv3x3": conv3x3.CUDA,
    "conv9x9_head": head.CUDA,
    "spab": spab.CUDA,
    "tail": tail.WGMMA,
}
# Images of one pixel, with odd sides, with several strips and segments per multiprocessor.
PROVEN = ((1, 1), (37, 201), (540, 960), (1081, 1923))
RERUNS, SECONDS = 10, 0.05


def steps(results: Path) -> list[tuple[str, list[str], dict[str, str], float]]:
    """(name, command, environment, seconds) of all steps."""
    build = [sys.executable, "setup.py", "build_ext", "--inplace", "--force"]
    this = [sys.executable, "-u", str(Path(__file__).resolve())]
    wanted = {"ESPAN_CUDA": "1", "ESPAN_CUDA_ARCHS": "90"}
    return [
        ("build that ends deadlocks", build, wanted | {"ESPAN_CUDA_TRAP": "1"}, 50),
        ("prove it", [*this, "--prove"], {}, 45),
        ("build", build, wanted, 45),
        ("prove", [*this, "--prove"], {}, 45),
        ("time", [*this, "--time", str(results)], {}, 50),
    ]


def main(results: Path) -> int:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != WGMMA_CAPABILITY:
        print("bench/wgmma.py: no GPU of compute capability 9.0")
        return 2
    for name, command, changes, limit in steps(results.resolve()):
        print(f"{name}: at most {limit:.0f} s ...", flush=True)
        try:
            code = run(
                command, cwd=machine.ROOT, env=os.environ | changes, timeout=limit
            ).returncode
        except TimeoutExpired:
            code = f"none after {limit:.0f} s"
        if code:
            print(f"{name}: exit code {code}")
            return 1
    return 0


def prove(device: torch.device) -> None:
    """AssertionError if a kernel's error is too large, or results differ between runs."""
    for name, cases in SAMPLES.items():
        op = OPS[name]
        (kernel,) = (one for one in op.kernels if one.name == "cuda_wgmma")
        for case in cases:
            args = op.make(case, torch.float16, device)
            if reason := kernel.refuses(args):
                print(f"{name} {case}: refuses: {reason}")
                continue
            print(f"{name} {case}: {_error(op, args, kernel.run)}", flush=True)
    for case in tail.WGMMA:
        _prove_flag(case, device)
    for name in NETWORKS:
        net = network.build(name).to(device, torch.float16)
        mma, wgmma = (Plan(net, impl) for impl in IMPLS)
        for height, width in PROVEN:
            pixels = torch.from_numpy(network.images(width, height)).permute(0, 3, 1, 2)
            pixels = pixels.to(device)
            (want, _), (got, trusted) = mma.checked(pixels), wgmma.checked(pixels)
            off = (got.int() - want.int()).abs().max().item()
            print(f"{name} {width}x{height}: off by {off} of 255, trusted {trusted.item()}")
            assert off <= 2 and trusted
            for _ in range(RERUNS):
                assert torch.equal(wgmma.checked(pixels)[0], got), "differs from run to run"
            if device.type == "cuda":
                again, still = timing.captured(wgmma.bind(pixels), device)()
                torch.cuda.synchronize(device)
                assert torch.equal(again, got) and still, "differs in a graph"


def _prove_flag(case: tuple, device: torch.device) -> None:
    """AssertionError if a tail's flag is wrong for a large, infinite, NaN or valid value."""
    inputs, weights, bias, up_weight, up_bias, scale, *_ = tail.make(case, torch.float16, device)
    order = tail_kernel.order(weights)
    packed = tail_kernel.pack([weights[i] for i in order], bias, up_weight, up_bias)
    planes = [layout.to_nc8hw8(inputs[i]) for i in order]
    n, _, h, w = planes[0].shape[:4]
    if not planes[0].numel():
        return
    out = torch.empty(n, 3, scale * h, scale * w, dtype=torch.uint8, device=device)
    most = max(one.abs().max().item() for one in planes)

    def is_trusted(limit: float) -> bool:
        trusted = torch.ones(1, dtype=torch.bool, device=device)
        bits = tail_kernel.limit_bits(limit)
        tail_kernel.launch(planes, packed, out, "contiguous", scale, True, trusted, bits)
        return bool(trusted)

    assert is_trusted(most) and not is_trusted(-1.0), f"tail {case}: a wrong flag"
    for one in planes:
        for value in (2 * most, float("inf"), float("nan")):
            before, one[-1, 0, -1, -1, 0] = one[-1, 0, -1, -1, 0].item(), value
            assert not is_trusted(most), f"tail {case}: trusts {value}"
            one[-1, 0, -1, -1, 0] = before


def _error(op, args: tuple, run: Callable[..., Tensor]) -> str:
    """Compares a kernel with float64; AssertionError if its error is more than twice eager's."""
    truth = op.reference(*_doubled(args))
    if not truth.numel():
        return "empty"
    eager, ours = op.reference(*args), run(*args)
    own, off = ((y.double() - truth).abs().max().item() for y in (eager, ours))
    slack = 1.0 if eager.dtype == torch.uint8 else torch.finfo(eager.dtype).eps
    assert off <= 2 * own + slack, f"{op.name}: off by {off:.3g}, eager by {own:.3g}"
    return f"off by {off:.3g}, eager by {own:.3g}"


def _doubled(arg):
    if isinstance(arg, list | tuple):
        return type(arg)(map(_doubled, arg))
    return arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg


def time(device: torch.device, results: Path) -> None:
    """Times kernels in NC/8HW8 layout, and entire plans from uint8 to uint8."""
    record = Record(machine.facts(device), machine.limits(device), kept=results)
    for name in NETWORKS:
        net = network.build(name).to(device, torch.float16)
        for size in SIZES:
            for label, contenders in _contests(name, net, size, device):
                found = timing.interleaved(contenders, device, SECONDS, replay=True)
                for impl, one in found.items():
                    record.add(label, impl, "{}x{}".format(*size), "fp16", one)
                    print(label, size, impl, one, flush=True)


def _contests(
    name: str, net, size: tuple[int, int], device: torch.device
) -> Iterator[tuple[str, timing.Contenders]]:
    """(label, {impl: its work}) for each kind of step of a network, then for the network."""
    plans = {impl: Plan(net, impl) for impl in IMPLS}
    seen: set[str] = set()
    for step, *chosen in zip(plans["cuda"].steps, *(p.chosen for p in plans.values()), strict=True):
        if not isinstance(step, Fused) or [one.name for one in chosen] != [*IMPLS]:
            continue
        label = _label(step)
        if label not in seen:
            seen.add(label)
            yield label, {impl: _launch(step, impl, size, device) for impl in IMPLS}
    pixels = torch.from_numpy(network.images(*size)).permute(0, 3, 1, 2).to(device)
    yield (
        f"plan of {name}, uint8 to uint8",
        {impl: plan.bind(pixels) for impl, plan in plans.items()},
    )


def _label(step: Fused) -> str:
    if isinstance(step, Block):
        return f"spab of {len(step.weights)}, {step.channels} channels, planes"
    if isinstance(step, Tail):
        return f"tail x{step.scale} of {len(step.sources)}, planes"
    return f"{step.name}, {step.channels} channels, planes"


def _launch(step: Fused, impl: str, size: tuple[int, int], device: torch.device) -> Callable:
    """One launch of a step's kernel in NC/8HW8 layout, on preallocated memory."""
    width, height = size

    def planes(channels: int) -> Tensor:
        shape = 1, -(-channels // layout.PLANE), height, width, layout.PLANE
        return torch.randn(shape, dtype=torch.float16, device=device)

    channels = step.weights[0].shape[0] if isinstance(step, Tail) else step.channels
    if isinstance(step, Head):
        pixels = torch.randint(256, (1, 3, height, width), dtype=torch.uint8, device=device)
        inputs = [pixels.contiguous(memory_format=torch.channels_last)]
    else:
        inputs = [planes(channels) for _ in step.reads]
    out = planes(channels)
    if isinstance(step, Tail):
        large = 1, 3, step.scale * height, step.scale * width
        out = layout.empty(out, large, torch.uint8, channels_last=True)
    options = {"clamp": True, "uint8": True, "overlap": False}
    options["scratch"] = planes(channels) if needs_scratch(step) else None
    options["trusted"] = torch.ones(1, dtype=torch.bool, device=device)
    return partial(launch_of(step, impl), out, *inputs, **options)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--prove"]:
        prove(torch.device("cuda"))
    elif arguments[:1] == ["--time"] and len(arguments) == 2:
        time(torch.device("cuda"), Path(arguments[1]))
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        sys.exit(main(Path(arguments[0])))
    else:
        sys.exit("usage: python bench/wgmma.py FILE")
