"""Timings that can be believed: contenders take turns, quantiles say the spread."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Rounds of a contender, however short or long it takes.
FEWEST, MOST = 3, 200
# Shorter kernels are replayed as a CUDA graph: launching them would take as long.
GRAPH_BELOW = 1e-3


@dataclass(frozen=True)
class Timing:
    """Seconds: median and the quantiles of 20 and 80 percent; bytes at the peak of a GPU."""

    median: float
    q20: float
    q80: float
    rounds: int
    peak: int | None = None

    @classmethod
    def of(cls, seconds: list[float], peak: int | None = None) -> "Timing":
        ordered = sorted(seconds)
        last = len(ordered) - 1
        q20, q80 = ordered[round(0.2 * last)], ordered[round(0.8 * last)]
        return cls(statistics.median(ordered), q20, q80, len(ordered), peak)


Contenders = dict[str, Callable[[], object]]


def interleaved(
    contenders: Contenders, device: torch.device, seconds: float, replay: bool = False
) -> dict[str, Timing | str]:
    """{name: its timing, or what went wrong}; about `seconds` of work for each contender.

    A round runs every contender once, so that what else the machine does meets all alike.
    replay: on a GPU, work below `GRAPH_BELOW` is timed as the replay of a CUDA graph.
    """
    clock = _Gpu(device, replay) if device.type == "cuda" else _Cpu()
    ready, failed = {}, {}
    for name, run in contenders.items():
        try:
            ready[name] = clock.prepare(run)
        except Exception as error:
            failed[name] = one_line(error)
    rounds = {
        name: max(FEWEST, min(MOST, int(seconds / max(first, 1e-7))))
        for name, (_, first, _) in ready.items()
    }
    times: dict[str, list[float]] = {name: [] for name in ready}
    for turn in range(max(rounds.values(), default=0)):
        for name, (run, _, _) in ready.items():
            # The short ones run oftener: spread over all rounds of the longest.
            if turn * rounds[name] // max(rounds.values()) == len(times[name]):
                times[name].append(clock.time(run))
    return {name: Timing.of(times[name], ready[name][2]) for name in ready} | failed


def captured(run: Callable, device: torch.device) -> Callable:
    """A function that replays `run` as a CUDA graph and returns the result that each replay fills.

    The work runs once before, on the stream of the capture: what a graph cannot hold, such as
    kernels to compile and workspaces to allocate, is done by then. RuntimeError if it cannot be
    captured.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            run()
        with torch.cuda.graph(graph, stream=stream):
            result = run()
    finally:
        torch.cuda.synchronize(device)

    def replay():
        graph.replay()
        return result

    return replay


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


class _Cpu:
    """Wall clock. A peak of memory is the process's alone and no row's: none is given."""

    def prepare(self, run: Callable) -> tuple[Callable, float, None]:
        run()
        return run, self.time(run), None

    def time(self, run: Callable) -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began


class _Gpu:
    """CUDA events around work that finds the L2 cache full of something else."""

    def __init__(self, device: torch.device, replay: bool):
        self.device, self.replay = device, replay
        size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
        self.flush = torch.empty(max(size, 1 << 26), dtype=torch.uint8, device=device)

    def prepare(self, run: Callable) -> tuple[Callable, float, int]:
        run()
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        first = self.time(run)
        peak = torch.cuda.max_memory_allocated(self.device) - before
        if self.replay and first < GRAPH_BELOW:
            run = self._graph(run)
        return run, self.time(run), peak

    def _graph(self, run: Callable) -> Callable:
        """Its replay, or the work itself if it cannot be captured (it waits, or copies to host)."""
        try:
            return captured(run, self.device)
        except RuntimeError:
            return run

    def time(self, run: Callable) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        torch.cuda.synchronize(self.device)
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
