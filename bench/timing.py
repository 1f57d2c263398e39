"""Reliable timings: interleaved contenders, medians and quantiles."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Limits on the number of rounds per contender.
FEWEST, MOST = 3, 200
# Shorter work is replayed as a CUDA graph, because launching it takes as long.
GRAPH_BELOW = 1e-3


@dataclass(frozen=True)
class Timing:
    """Seconds: median, 20% and 80% quantiles; peak memory in bytes on a GPU."""

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
    """{name: its timing, or the error message}; about `seconds` of work per contender.

    A round runs every contender once, so that other load on the machine affects all equally.
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
            # Spread each contender's rounds evenly over the rounds of the most frequent one.
            if turn * rounds[name] // max(rounds.values()) == len(times[name]):
                times[name].append(clock.time(run))
    return {name: Timing.of(times[name], ready[name][2]) for name in ready} | failed


def captured(run: Callable, device: torch.device) -> Callable:
    """Returns a function that replays `run` as a CUDA graph and returns its result, which each
    replay overwrites.

    The work runs once before the capture on the same stream, to compile kernels and allocate
    workspaces outside the graph. RuntimeError if it cannot be captured.
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

    replay.run = run  # type: ignore[attr-defined]  # owns memory that the graph uses
    return replay


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


class _Cpu:
    """Wall clock. Gives no peak memory, because only the peak of the entire process is known."""

    def prepare(self, run: Callable) -> tuple[Callable, float, None]:
        run()
        return run, self.time(run), None

    def time(self, run: Callable) -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began


class _Gpu:
    """CUDA events around the work, with a flushed L2 cache."""

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
        """A replay of `run`, or `run` itself if it waits or copies to the host."""
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
