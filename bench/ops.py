"""Benchmarks of the ops: sizes, operation counts, contenders, and a check of every result."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.peers import DTYPES, AbsentError
from bench.record import Record, UsageError
from bench.timing import interleaved, one_line
from espan_kernels import machine
from espan_kernels.machine import tensors
from espan_kernels.op import OPS

DCT_BATCH = {"cpu": 4, "cuda": 64}


@dataclass(frozen=True)
class Bench:
    """case(width, height, images): arguments of the op's `make`. flop(args): additions and
    multiplications of one call.
    """

    case: Callable
    flop: Callable
    default: tuple[tuple[int, int], ...]


def _convolved(x: Tensor, *weights: Tensor) -> float:
    """2 operations for every weight at every pixel."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return 2.0 * pixels * sum(weight.numel() for weight in weights)


def _transformed(x: Tensor, block, times: int) -> float:
    """Two matrix products."""
    height, width = (block or side for side in x.shape[-2:])
    return 2.0 * times * x.numel() * (height + width)


FRAMES, PATCHES = ((480, 270), (960, 540)), ((256, 256), (64, 64))
THREE = [(32, 3), (32, 1), (32, 1)]
BENCHES = {
    "span_gate": Bench(lambda w, h, n: (1, 32, h, w), lambda x, y: 5.0 * x.numel(), FRAMES),
    "conv3x3": Bench(
        lambda w, h, n: (1, 32, 32, h, w, "gate"), lambda x, w, *rest: _convolved(x, w), FRAMES
    ),
    "conv9x9_head": Bench(
        lambda w, h, n: (1, 32, h, w, False), lambda x, w, b: _convolved(x, w), FRAMES
    ),
    "spab": Bench(lambda w, h, n: (1, 32, 3, h, w), lambda x, ws, bs: _convolved(x, *ws), FRAMES),
    "tail": Bench(
        lambda w, h, n: (1, 32, THREE, 4, h, w, False, True),
        lambda xs, ws, b, up, *rest: _convolved(xs[0], *ws, up),
        FRAMES,
    ),
    "dct2": Bench(
        lambda w, h, n: ((n, 3, h, w), None), lambda x, block, _: _transformed(x, block, 1), PATCHES
    ),
    "dct_l1": Bench(
        lambda w, h, n: ((n, 3, h, w), None),
        lambda sr, hr, block, _: _transformed(sr, block, 2),
        PATCHES,
    ),
}


def shapes(name: str, device: torch.device, sizes: list[tuple[int, int]] | None, full: bool):
    """(width, height) of the inputs: `sizes`, else all with `full` or for frames on a GPU, else
    the first.
    """
    default = BENCHES[name].default
    return sizes or default[: None if full or (device.type, default) == ("cuda", FRAMES) else 1]


def run(
    record: Record,
    name: str,
    device: torch.device,
    sizes: list[tuple[int, int]] | None,
    wanted: Callable[[str], bool],
    full: bool,
    seconds: float,
) -> None:
    """Adds the op's rows to `record`, for eager and all `wanted` contenders."""
    bench, op = BENCHES[name], OPS[name]
    kinds = ["fp32"] if name.startswith("dct") else ["fp32", "bf16"]
    if device.type == "cuda":
        kinds = ["fp32"] if name.startswith("dct") else ["fp16"]
    for width, height in shapes(name, device, sizes, full):
        for kind in kinds:
            case = bench.case(width, height, DCT_BATCH[device.type])
            args = op.make(case, DTYPES[kind], device)
            args = _channels_last(args)
            contenders = _contenders(record, op, args, wanted, full)
            contenders = _correct(record, op, args, contenders)
            timings = interleaved(contenders, device, seconds, replay=True)
            moved = sum(t.nbytes for t in tensors(args)) + _made(name, args)
            label = f"{width}x{height}"
            for impl, timing in timings.items():
                record.add(name, impl, label, kind, timing, bench.flop(*args), moved)


def _channels_last(args: tuple) -> tuple:
    def laid(x):
        if isinstance(x, list):
            return [laid(each) for each in x]
        four = isinstance(x, Tensor) and x.dim() == 4
        return x.contiguous(memory_format=torch.channels_last) if four else x

    return tuple(map(laid, args))


def _made(name: str, args: tuple) -> int:
    """Bytes of the outputs: for dct_l1 a gradient as large as the input, else eager's output."""
    if name == "dct_l1":
        return args[0].nbytes
    return OPS[name].reference(*args).nbytes


def _contenders(record: Record, op, args, wanted, full: bool) -> dict[str, Callable]:
    """All contenders that can run the op on these arguments; notes the reason for the others."""
    found: dict[str, Callable] = {}
    is_loss = op.name == "dct_l1"
    eager = (lambda: _loss_and_gradient(op.reference, args)) if is_loss else _calls(op, args)
    found["eager"] = eager
    for kernel in op.kernels:
        reason = kernel.refuses(args)
        if reason is None and machine.INTERPRETED:
            reason = "TRITON_INTERPRET is set: the interpreter's time is meaningless"
        if reason:
            record.absent[f"{op.name} {kernel.name}"] = reason
        else:
            found[kernel.name] = lambda k=kernel: k.run(*args)
    for mode in compile_modes(op.name, tensors(args)[0].device) if full else ():
        compiled = torch.compile(op.reference, mode=mode)
        found[f"compile {mode}"] = lambda c=compiled: c(*args)
    for name, build in DCT_PEERS.items() if op.name.startswith("dct") else ():
        try:
            found[name] = build(op.name, *args)
        except AbsentError as reason:
            record.absent[f"{op.name} {name}"] = str(reason)
    return {n: call for n, call in found.items() if n == "eager" or wanted(n)}


def compile_modes(name: str, device: torch.device) -> tuple[str, ...]:
    """The modes of torch.compile to time; a loss with its gradient is not compiled."""
    if name == "dct_l1":
        return ()
    return ("default", "max-autotune") if device.type == "cuda" else ("default",)


def _calls(op, args) -> Callable:
    def call():
        with torch.inference_mode():
            return op.reference(*args)

    return call


def _loss_and_gradient(loss: Callable, args) -> tuple[Tensor, Tensor]:
    sr = args[0].detach().requires_grad_()
    value = loss(sr, *args[1:])
    value = value[0] if isinstance(value, tuple) else value
    return value.detach(), torch.autograd.grad(value, sr)[0]


def _correct(record: Record, op, args, contenders: dict) -> dict:
    """The contenders whose error against float64 is at most twice eager's (peers: ten times)."""
    wide = [_doubled(arg) for arg in args]
    is_loss = op.name == "dct_l1"
    truth = op.reference(*wide)
    truth = truth[0] if is_loss else truth

    def error(run):
        out = run()
        out = torch.as_tensor(out[0] if isinstance(out, tuple) else out)
        if out.shape != truth.shape:
            raise RuntimeError(f"shape {tuple(out.shape)}, expected {tuple(truth.shape)}")
        return (out.to(truth.device).double() - truth.double()).abs().max().item()

    good, own = {}, None
    for name, run in contenders.items():
        try:
            off = error(run)
        except Exception as failure:
            record.absent[f"{op.name} {name}"] = one_line(failure)
            continue
        own = off if own is None else own
        first = tensors(args)[0]
        slack = 1.0 if truth.dtype == torch.uint8 else torch.finfo(first.dtype).eps
        factor = 2 if name in {kernel.name for kernel in op.kernels} else 10
        if off <= factor * own + slack * max(1.0, truth.abs().max().item()):
            good[name] = run
        else:
            record.absent[f"{op.name} {name}"] = f"wrong: off by {off:.3g}, eager by {own:.3g}"
    return good


def _doubled(arg):
    if isinstance(arg, list):
        return [_doubled(each) for each in arg]
    return arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg


def _two_matmuls(name: str, x, *rest):
    from espan_kernels.dct2d.reference import matrix

    down, across = (matrix(n, x.dtype, x.device) for n in x.shape[-2:])
    if name == "dct2":
        return lambda: down @ x @ across.T
    return lambda: _loss_and_gradient(
        lambda sr, hr: (down @ (sr - hr) @ across.T).abs().mean(), (x, rest[0])
    )


def _torch_dct(name: str, x, *rest):
    try:
        import torch_dct
    except ImportError as error:
        raise AbsentError(f"torch-dct: {one_line(error)}") from error
    if name == "dct2":
        return lambda: torch_dct.dct_2d(x, norm="ortho")
    return lambda: _loss_and_gradient(
        lambda sr, hr: torch_dct.dct_2d(sr - hr, norm="ortho").abs().mean(), (x, rest[0])
    )


def _library_dctn(library: str, on: str):
    def build(name: str, x, *rest):
        if name != "dct2":
            raise AbsentError(f"{library}: has no gradient")
        if x.device.type != on:
            raise AbsentError(f"{library}: runs on {on}")
        try:
            if on == "cpu":
                from scipy.fft import dctn

                array = x.contiguous().numpy()
                return lambda: dctn(array, axes=(-2, -1), norm="ortho", workers=-1)
            import cupy
            from cupyx.scipy.fft import dctn
        except ImportError as error:
            raise AbsentError(f"{library}: {one_line(error)}") from error
        array = cupy.from_dlpack(x.contiguous())
        return lambda: torch.from_dlpack(dctn(array, axes=(-2, -1), norm="ortho"))

    return build


DCT_PEERS = {
    "two matmuls": _two_matmuls,
    "torch-dct": _torch_dct,
    "scipy dctn": _library_dctn("scipy", "cpu"),
    "cupy dctn": _library_dctn("cupy", "cuda"),
}


def check_names(names: list[str]) -> None:
    for name in names:
        if name not in BENCHES and name != "network":
            known = ", ".join([*BENCHES, "network"])
            raise UsageError(f"op: expected some of {known}, got {name!r}")
