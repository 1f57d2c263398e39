"""The network against its peers, called directly and in CUDA graphs, for every model."""

from collections.abc import Callable

import numpy as np
import torch

from bench import peers, timing
from bench.record import Record
from bench.timing import interleaved, one_line
from espan.backends.lowering import lower
from espan.backends.program import Convolution, Tail, unfused
from espan.networks.espan import ESPAN
from espan.networks.network import Network
from espan.networks.span import SPAN
from espan.networks.spanf import SPANF

FRAMES = ((480, 270), (510, 339), (960, 540), (1920, 1080))
MODELS = {
    "ESPAN": lambda: ESPAN(),
    "SPAN-28": lambda: SPAN(channels=28),
    "SPAN-48": lambda: SPAN(channels=48),
    "SPAN-F": lambda: SPANF(),
}
# Contenders on models other than ESPAN, and on batches.
OF_EACH = ("espan", "espan fp32", "eager bf16", "eager fp16", "spandrel")
# What is timed: prepared input to output, uint8 image to uint8 image, and both in CUDA graphs.
ALONE, END_TO_END, GRAPH = "network alone", "uint8 to uint8", ", CUDA graph"
# The allowed error of a peer, in 0..1: half precision rounds at every layer.
ALLOWED = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1}

Wanted = Callable[[str], bool]


def build(name: str) -> Network:
    """A network in deploy form. Weights do not affect speed, but ESPAN uses the built-in ones if
    they can be read, so that peers are compared on a user's results.
    """
    torch.manual_seed(0)
    net = MODELS[name]()
    if name == "ESPAN":
        try:
            from espan import load
        except ImportError:
            return net.eval().requires_grad_(False)
        net = load("espan-x4")
    return net.eval().requires_grad_(False)


def images(width: int, height: int, n: int = 1) -> np.ndarray:
    """uint8 (N, H, W, 3), random, with low frequencies like natural images."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, height // 8 + 2, width // 8 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noisy = smooth + 0.05 * torch.randn(n, 3, height, width, generator=generator)
    return (noisy.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def flop(net: Network) -> float:
    """Operations per input pixel with a merged tail: 2 for each weight."""
    count = 0
    for step in unfused(lower(net)):
        if isinstance(step, Tail):
            count += sum(weight.numel() for weight in step.weights) + step.up_weight.numel()
        elif isinstance(step, Convolution):
            count += step.weight.numel()
    return 2.0 * count


def frames(device: torch.device, sizes, full: bool) -> tuple[tuple[int, int], ...]:
    """(width, height) of the inputs: the given ones, all with `full`, else one, on a GPU two."""
    if sizes or full:
        return tuple(sizes or FRAMES)
    return (FRAMES[0], FRAMES[2]) if device.type == "cuda" else FRAMES[:1]


def parts(device: torch.device, sizes, wanted: Wanted, full: bool, seconds: float) -> dict:
    """{name: a function that adds its rows to a record}."""
    found, sizes = {}, frames(device, sizes, full)

    def add(name: str, size: tuple[int, int], n: int, requested: Wanted) -> None:
        if not any(map(requested, contenders_on(device))):
            return

        def run(record: Record) -> None:
            against_peers(record, name, build(name), device, size, n, requested, seconds)

        found[f"network {name} {_label(size, n)}"] = run

    def of_each(impl: str) -> bool:
        return impl in OF_EACH and wanted(impl)

    for size in sizes:
        add("ESPAN", size, 1, wanted)
    for name in MODELS:
        for n in (1, 8) if full else (1,):
            if (name, n) != ("ESPAN", 1):
                for size in sizes if full and device.type == "cuda" else sizes[:1]:
                    add(name, size, n, of_each)
    return found


def contenders_on(device: torch.device) -> dict[str, Callable]:
    """{name: builder} of the contenders on this device."""
    return peers.CPU if device.type == "cpu" else peers.CUDA


def _label(size: tuple[int, int], n: int) -> str:
    return f"{size[0]}x{size[1]}" + (f" x{n}" if n > 1 else "")


def against_peers(
    record: Record, name: str, net: Network, device, size, n: int, wanted: Wanted, seconds: float
) -> None:
    """Adds rows of all `wanted` contenders that run `net`, on n images of this size."""
    shown = images(*size, n)
    with torch.inference_mode():
        want = net(torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255).numpy()
    built: dict[str, peers.Built] = {}
    for impl, make in contenders_on(device).items():
        if not wanted(impl):
            continue
        try:
            one = make(net, shown, device)
            _check(one, one.alone(), want)
        except Exception as reason:
            record.absent[f"network {name}: {impl}"] = one_line(reason)
            continue
        built[impl] = one
    contests = {
        ALONE: {impl: one.alone for impl, one in built.items()},
        END_TO_END: {impl: one.end_to_end for impl, one in built.items() if one.end_to_end},
    }
    if device.type == "cuda":
        contests |= _in_graphs(record, name, built, shown, want, device)
    work = flop(net) * n * size[0] * size[1]
    for contest, contenders in contests.items():
        for impl, found in interleaved(contenders, device, seconds).items():
            op = f"{name}, {contest}"
            record.add(op, impl, _label(size, n), built[impl].dtype, found, work)


def _in_graphs(record: Record, name: str, built: dict, shown, want, device) -> dict[str, dict]:
    """The same contests with the work on the device replayed as one CUDA graph.

    At small sizes PyTorch's operators take longer to launch than to run, which users can avoid this
    way. Contenders that replay their own graphs run unchanged.
    """
    contests: dict[str, dict] = {ALONE + GRAPH: {}, END_TO_END + GRAPH: {}}
    for impl, one in built.items():
        makers = {
            ALONE: lambda one=one: _alone_in_a_graph(one, want, device),
            END_TO_END: lambda one=one: _end_to_end_in_a_graph(one, shown, device),
        }
        for contest, make in makers.items():
            try:
                run = make()
            except Exception as reason:
                record.absent[f"network {name}, {contest}{GRAPH}: {impl}"] = one_line(reason)
                continue
            if run:
                contests[contest + GRAPH][impl] = run
    return contests


def _alone_in_a_graph(built: peers.Built, want: np.ndarray, device) -> Callable[[], object]:
    if "alone" in built.own_graph:
        return built.alone
    replay = timing.captured(built.alone, device)
    _check(built, replay(), want)
    return replay


def _end_to_end_in_a_graph(built: peers.Built, shown: np.ndarray, device) -> Callable | None:
    """Copies the image to the graph's input, replays and fetches the result; None if impossible."""
    if "end_to_end" in built.own_graph:
        return built.end_to_end
    if built.pixels is None:
        return None
    host = torch.from_numpy(shown).permute(0, 3, 1, 2)
    still = host.to(device)
    replay = timing.captured(lambda: built.pixels(still), device)

    def end_to_end() -> np.ndarray:
        still.copy_(host)
        return peers.pixels_to_array(replay())

    off = int(np.abs(end_to_end().astype(int) - built.end_to_end()).max())
    if off > ALLOWED[built.dtype] * 255:
        raise peers.AbsentError(f"wrong: off by {off} of 255 from the image without a graph")
    return end_to_end


def _check(built: peers.Built, y, want: np.ndarray) -> None:
    """Raises AbsentError if the result `y` is wrong: such contenders are not timed."""
    if built.values is None:
        if tuple(y.shape) != want.shape:
            raise peers.AbsentError(f"wrong: shape {tuple(y.shape)}, expected {want.shape}")
        return
    off = float(np.abs(built.values(y) - want).max())
    # Untrained weights give results outside 0..1.
    largest = max(1.0, float(np.abs(want).max()))
    if not off <= ALLOWED[built.dtype] * largest:
        raise peers.AbsentError(
            f"wrong: off by {off:.3g} of {largest:.3g} from the network in fp32"
        )
