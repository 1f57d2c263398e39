"""Checks of kernels and upscalers on a GPU, as functions that raise AssertionError.

`tests/kernels/test_gpu.py` runs them on a GPU; `tests/kernels/test_gpu_checks.py` tests on any
machine that each of them fails for a wrong kernel.
"""

from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from espan_kernels import dct2, dct_l1
from espan_kernels.op import Kernel, Op
from tests.support.contract import assert_agrees, banded, mapped, outputs
from tests.support.guards import guarded_outputs, poison
from tests.support.makers import noise
from tests.support.threads import in_threads, same_bits_in_threads

RERUNS, THREADS, RUNS_PER_THREAD = 250, 4, 20
# Larger cases in addition to the ops' samples, which are sized for an interpreter: frames, odd
# sizes around every tile, strip and segment, batches.
_TAIL = [(32, 3), (32, 1), (32, 1)]
LARGE = {
    "span_gate": [(2, 32, 270, 481), (1, 3, 1081, 1919)],
    "span_gate_backward": [(2, 32, 270, 481)],
    "conv3x3": [
        (2, 32, 32, 65, 131, "gate"),
        (3, 32, 32, 33, 257, "none"),
        (1, 32, 32, 541, 961, "silu"),
        (1, 48, 48, 67, 129, "silu"),
    ],
    "conv9x9_head": [(2, 32, 65, 131, False), (1, 32, 271, 479, True)],
    "dct2": [((2, 3, 192, 256), None), ((2, 129, 255), None, True), ((1, 512, 512), None)],
    "dct_l1": [
        ((16, 3, 256, 256), None),
        ((2, 3, 192, 96), None),
        ((2, 129, 255), None),
        ((1, 512, 509), None),
        ((3, 320, 64), None),
        ((2, 3, 256, 512), 8),
        ((3, 96, 64), 32),
    ],
    "spab": [
        (2, 32, 3, 65, 131),
        (3, 32, 2, 33, 190),
        (1, 32, 3, 541, 961),
        (1, 48, 3, 67, 129),
    ],
    "tail": [(2, 32, _TAIL, 4, 33, 65, False, True), (1, 32, _TAIL, 4, 271, 481, True, False)],
}


def loss_and_gradient(sr, hr, block, with_grad):
    """The outputs of dct_l1's kernels, loss and gradient, computed by autograd."""
    sr = sr.detach().requires_grad_()
    with torch.enable_grad():
        loss = dct_l1(sr, hr, block=block, impl="eager")
        return loss.detach(), *torch.autograd.grad(loss, sr)


# Tolerated error in ulps. Tensor cores truncate sums, which biases all coefficients in one
# direction, so a loss shows it.
PLACES = {"dct_l1": 8}
# References for kernels that return more than the op's reference.
RETURNS = {"dct_l1": loss_and_gradient}


def kernel_of(op: Op, impl: str) -> Kernel:
    return next(kernel for kernel in op.kernels if kernel.name == impl)


def arguments(op: Op, impl: str, dtype: torch.dtype, device: str):
    """(case, arguments) for each case that the kernel supports."""
    for case in [*op.cases, *LARGE.get(op.name, [])]:
        args = op.make(case, dtype, device)
        if kernel_of(op, impl).refuses(args) is None:
            yield case, args


def refusals(op: Op, impl: str, dtype: torch.dtype, device: str) -> set[str]:
    """The reasons why the kernel refuses all cases; empty if it supports one."""
    reasons = [
        kernel_of(op, impl).refuses(op.make(case, dtype, device))
        for case in [*op.cases, *LARGE.get(op.name, [])]
    ]
    return set() if None in reasons else set(reasons)


def usual(op: Op, impl: str, dtype: torch.dtype, device: str):
    return next(args for _, args in arguments(op, impl, dtype, device))


def run(op: Op, impl: str, args) -> list[torch.Tensor]:
    with torch.no_grad():
        return outputs(op(*args, impl=impl))


def assert_equal(got, expected, what: str):
    """Bitwise equality, including NaN."""
    for ours, theirs in zip(got, expected, strict=True):
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        assert same.all(), f"{what}: {(~same).sum().item()} of {same.numel()} numbers differ"


def check_agrees(op: Op, impl: str, dtype: torch.dtype, device: str):
    """Compares every case with float64, with guard bands around inputs and outputs."""
    for case, args in arguments(op, impl, dtype, device):
        try:
            with guarded_outputs(), torch.no_grad():
                places = PLACES.get(op.name, 1)
                assert_agrees(op, mapped(args, banded), RETURNS.get(op.name), impl, places)
        except AssertionError as error:
            raise AssertionError(f"{op.name} {impl} {case} {dtype}: {error}") from error


def check_reruns(op: Op, impl: str, dtype: torch.dtype, device: str):
    args = usual(op, impl, dtype, device)
    first = run(op, impl, args)
    for i in range(RERUNS):
        assert_equal(run(op, impl, args), first, f"{op.name} {impl}: rerun {i}")


@contextmanager
def other_stream(device: str):
    """A new stream that starts with some milliseconds of work."""
    if torch.device(device).type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        yield
    stream.synchronize()


def check_stream(op: Op, impl: str, dtype: torch.dtype, device: str):
    """Runs on a stream where arguments arrive late: a kernel that does not wait reads poison."""
    args = usual(op, impl, dtype, device)
    expected = run(op, impl, args)
    with other_stream(device):
        late = mapped(args, lambda t: torch.full_like(t, poison(t.dtype)))
        for to, value in zip(_tensors(late), _tensors(args), strict=True):
            to.copy_(value)
        got = run(op, impl, late)
    assert_equal(got, expected, f"{op.name} {impl}: on another stream")


def _tensors(args) -> list[torch.Tensor]:
    found = []
    mapped(args, found.append)
    return found


def check_threads(op: Op, impl: str, dtype: torch.dtype, device: str):
    """Concurrent threads with separate arguments and streams get the same results as one thread."""
    args = usual(op, impl, dtype, device)
    # Powers of two are exact in every dtype.
    own = [
        mapped(args, lambda t, i=i: t / 2**i if t.is_floating_point() else t)
        for i in range(THREADS)
    ]
    alone = [run(op, impl, each) for each in own]
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()

    def work(i):
        with torch.cuda.stream(torch.cuda.Stream()) if on_cuda else nullcontext():
            for _ in range(RUNS_PER_THREAD):
                assert_equal(run(op, impl, own[i]), alone[i], f"{op.name} {impl}: thread {i}")

    in_threads(work, THREADS)


def check_dct_gradient(shape, block: int | None, impl: str, device: str):
    """Checks signs of coefficients down to 1e-4 of the largest; TF32 or float16 would flip many."""
    generator = torch.Generator().manual_seed(0)
    sizes = 0.01 * 10 ** (-4 * torch.rand(shape, generator=generator, dtype=torch.float64))
    signs = torch.randn(shape, generator=generator).sign()
    hr = torch.rand(shape, generator=generator, dtype=torch.float64)
    sr = hr + dct2(sizes * signs, block=block, inverse=True, impl="eager")
    sr, hr = sr.float().to(device), hr.float().to(device)
    loss, gradient = loss_and_gradient(sr.double(), hr.double(), block, True)
    sr.requires_grad_()
    ours = dct_l1(sr, hr, block=block, impl=impl)
    ours.backward()
    assert abs(ours.item() / loss.item() - 1) < 4e-6, f"loss {ours.item()}, not {loss.item()}"
    error = ((sr.grad - gradient).norm() / gradient.norm()).item()
    assert error < 4e-6, f"the gradient is off by {error:.3g} of its norm"


DCT_SHAPES = [
    ((16, 3, 256, 256), None),
    ((2, 129, 255), None),
    ((1, 512, 509), None),
    ((2, 3, 256, 512), 8),
    ((3, 96, 64), 32),
]
CHECKS = [check_agrees, check_reruns, check_stream, check_threads]

# An upscaler takes an image (H, W, 3) of uint8, or a list of them, as `espan.Upscaler` does.
SIZES = [(1, 1), (1, 67), (67, 1), (5, 3), (64, 64), (127, 129), (271, 481)]
# Levels of 255 between float16 and float32; PyTorch's own float16 differs by 1 and by 0.04.
LARGEST, MEAN = 2, 0.1


def check_upscaler_agrees(upscaler, exact):
    for size in SIZES:
        image = noise(*size, 3)
        ours, theirs = upscaler(image), exact(image)
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.uint8
        off = np.abs(ours.astype(int) - theirs)
        assert off.max() <= LARGEST and off.mean() <= MEAN, f"{size}: {off.max()}, {off.mean():.3f}"


def check_upscaler_reruns(upscaler):
    image = noise(64, 66, 3)
    first = upscaler(image)
    for i in range(RERUNS):
        assert np.array_equal(upscaler(image), first), f"rerun {i}"


def check_upscaler_batch(upscaler):
    """A list of images, of several sizes, gives what each alone gives, and so does a tensor.

    Except for one level: batches may sum in another order.
    """
    images = [noise(*size, 3, seed=i) for i, size in enumerate([*SIZES[:5], SIZES[4]])]
    batch = torch.from_numpy(noise(3, 3, 35, 33))
    pairs = [*zip(upscaler(images), map(upscaler, images), strict=True)]
    pairs += [*zip(upscaler(batch).numpy(), (upscaler(x).numpy() for x in batch), strict=True)]
    for i, (got, alone) in enumerate(pairs):
        assert got.shape == alone.shape, f"image {i}: {got.shape}, not {alone.shape}"
        assert np.abs(got.astype(int) - alone).max() <= 1, f"image {i}"


def check_upscaler_stream(upscaler, device: str):
    """A tensor on the device that is filled late, on another stream."""
    image = torch.from_numpy(noise(3, 65, 67)).to(device)
    expected = upscaler(image)
    with other_stream(device):
        late = torch.full_like(image, 171)
        late.copy_(image)
        got = upscaler(late)
    assert torch.equal(got, expected)


def check_upscaler_threads(upscaler):
    images = [noise(40 + i, 50, 3, seed=i) for i in range(THREADS)]
    same_bits_in_threads(upscaler, images, RUNS_PER_THREAD)
