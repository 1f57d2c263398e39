"""Tests for every kernel of every op: agreement, strides, empty batches, torch.library."""

import pytest
import torch
from torch import Tensor

from espan_kernels import OPS
from espan_kernels.op import Op
from tests.support.gpu import DEVICE
from tests.support.guards import guarded

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Lengths of an image's side for Triton's tiles of 8x16 and less: every way to fill one, alone and
# behind whole ones, and both sides of 64.
LENGTHS = [*range(1, 36), *range(63, 68)]


def mapped(args, change):
    """`args` with every tensor, including those in lists, replaced by change(tensor)."""
    if isinstance(args, Tensor):
        return change(args)
    if isinstance(args, list | tuple):
        return type(args)(mapped(arg, change) for arg in args)
    return args


def in_float64(args):
    return mapped(args, lambda t: t.double() if t.is_floating_point() else t)


def outputs(out) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else list(out)


def assert_agrees(op: Op, args, reference=None, impl: str = "triton", places: int = 1):
    """The kernel's error against float64 is at most twice that of torch in the same dtype.

    The tolerance adds `places` ulps of a result of size 1, as torch's error can be 0 by chance.
    """
    reference = reference or op.reference
    truths = outputs(reference(*in_float64(args)))
    eager = outputs(reference(*args))
    got = outputs(op(*args, impl=impl))
    assert len(got) == len(truths)
    for truth, theirs, ours in zip(truths, eager, got, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert ours.device == theirs.device
        if truth.numel():
            floating = theirs.is_floating_point()
            slack = places * torch.finfo(theirs.dtype).eps if floating else 1.0
            allowed = 2 * (theirs.double() - truth).abs().nan_to_num(0).max().item() + slack
            off = (ours.double() - truth).abs()
            error = off.where(~(ours.isnan() & truth.isnan()), 0).max().item()
            assert error <= allowed, f"{op.name}: error {error:.3g}, allowed {allowed:.3g}"


def every_other(t: Tensor) -> Tensor:
    """The same values with doubled strides and poison in between."""
    out, _ = guarded(torch.empty([2 * n for n in t.shape], dtype=t.dtype, device=t.device))
    out = out[tuple(slice(None, None, 2) for _ in t.shape)]
    return out.copy_(t)


def channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


def banded(t: Tensor) -> Tensor:
    """The same values between two guard bands of poison, to detect reads out of bounds."""
    out, _ = guarded(t)
    return out.copy_(t)


STRIDES = {"bands": banded, "strided": every_other, "channels_last": channels_last}


def contract(name: str, reference=None, impl="triton", dtypes=DTYPES, cases=None):
    """A base class with the tests that every kernel must pass.

    `reference`: replaces the op's reference if the kernel returns more;
    `dtypes`, `cases`: the supported ones, if not all.
    """
    op = OPS[name]
    cases = cases or op.cases
    (kernel,) = (kernel for kernel in op.kernels if kernel.name == impl)
    every_case = pytest.mark.parametrize("case", cases, ids=str)

    def arguments(case):
        return op.make(case, dtypes[0], DEVICE)

    class Contract:
        @every_case
        @pytest.mark.parametrize("dtype", dtypes, ids=lambda d: str(d).removeprefix("torch."))
        def test_agrees(self, case, dtype, guard_bands):
            assert_agrees(op, mapped(op.make(case, dtype, DEVICE), banded), reference, impl)

        @pytest.mark.parametrize("strides", STRIDES.values(), ids=STRIDES.keys())
        def test_strides(self, strides, guard_bands):
            args = arguments(cases[1])
            assert_agrees(op, mapped(args, strides), reference, impl)
            args = arguments(cases[0])
            assert_agrees(op, mapped(args, strides), reference, impl)

        def test_opcheck(self):
            args = arguments(cases[0])
            torch.library.opcheck(kernel.run, args)
            # The stride-dependent checks.
            strided = mapped(args, channels_last)
            torch.library.opcheck(
                kernel.run, strided, test_utils=("test_schema", "test_faketensor")
            )

        @pytest.mark.parametrize("impl", [None, "eager", impl])
        def test_compile(self, impl):
            torch.compiler.reset()
            args = arguments(cases[0])
            compiled = torch.compile(
                lambda *args: op(*args, impl=impl), fullgraph=True, backend="aot_eager"
            )
            for ours, theirs in zip(
                outputs(compiled(*args)), outputs(op(*args, impl=impl)), strict=True
            ):
                torch.testing.assert_close(ours, theirs)

    return Contract
