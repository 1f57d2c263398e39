"""An op: its eager definition, its kernels, and the choice among them."""

import importlib
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from espan_kernels import layout, machine, order

# The implementation for calls with impl=None. Like an explicit one it never falls back.
DEFAULT_IMPL = os.environ.get("ESPAN_IMPL") or None

OPS: dict[str, "Op"] = {}


@cache
def _load(entry: str) -> Callable:
    """Imports a launcher on first use; `entry` is "package.module:function"."""
    module, function = entry.split(":")
    return getattr(importlib.import_module(module), function)


class Kernel:
    """One implementation of an op: its torch op and the checks that can refuse a call."""

    def __init__(self, name: str, run: Callable | None, refusals: tuple[Callable, ...]):
        self.name = name
        self.run: Any = run  # None if it always refuses
        self.refusals = refusals

    def refuses(self, args) -> str | None:
        """The first reason why it cannot run on `args`, or None."""
        for refusal in self.refusals:
            if (reason := refusal(*args)) is not None:
                return reason
        return None


class Op:
    """`op(*args, impl=None)` runs the first of `candidates` that does not refuse, else the
    reference.

    `reference(*args)` is the definition: plain PyTorch, any device and dtype; its annotations are
    the schema of every kernel. `make(case, dtype, device)` returns sample arguments for each of
    `cases`, the typical case first. `fake(*args)` returns a kernel's outputs without values; by
    default with the reference's shapes and the memory format of the first tensor.
    `backward` and `setup_context` go to `torch.library.register_autograd` for every kernel.

    The choice is plain Python on metadata outside the torch.library ops, so `torch.compile` traces
    through it and fuses the eager implementation.
    """

    def __init__(
        self,
        name: str,
        reference: Callable,
        cases: list[tuple],
        make: Callable,
        *,
        fake: Callable | None = None,
        backward: Callable | None = None,
        setup_context: Callable | None = None,
    ):
        self.name = name
        self.reference = reference
        self.cases = cases
        self.make = make
        self.fake = fake or self._shaped_as_reference
        self.backward = backward
        self.setup_context = setup_context
        self.kernels: list[Kernel] = []
        OPS[name] = self

    def kernel(self, impl: str, entry: str, *refusals: Callable):
        """Adds a kernel: its launcher and its checks.

        Where nothing was measured, kernels added earlier are assumed to be faster.
        """

        def launch(*args):
            # Triton launches on the current device, not on the device of its tensors.
            with torch.cuda.device_of(machine.first(args)):
                return _load(entry)(*args)

        run = torch.library.custom_op(
            f"espan::{self.name}_{impl}",
            launch,
            mutates_args=(),
            schema=torch.library.infer_schema(self.reference, mutates_args=()),
        )
        run.register_fake(self.fake)
        if self.backward is not None:
            run.register_autograd(self.backward, setup_context=self.setup_context)
        self.kernels.append(Kernel(impl, run, refusals))

    def unavailable(self, impl: str, reason: str):
        """Adds an implementation that always refuses, for `reason`."""
        self.kernels.append(Kernel(impl, None, (lambda *args: reason,)))

    def candidates(self, args) -> list[Kernel]:
        """The kernels that a call with impl=None tries, in order."""
        capability = machine.capability_of(machine.first(args))
        if capability is None:
            return self.kernels
        names = [kernel.name for kernel in self.kernels]
        ranked = order.fastest_first(self.name, names, capability, _pixels(args))
        return [self.kernels[names.index(name)] for name in ranked]

    def choose(self, args, impl: str | None = None) -> Kernel | None:
        """The kernel to run on `args`; None means the reference."""
        impl = impl or DEFAULT_IMPL
        if impl == "eager" or (impl is None and machine.INTERPRETED):
            return None
        for kernel in self.candidates(args) if impl is None else self.kernels:
            if impl is None or impl == kernel.name:
                reason = kernel.refuses(args)
                if reason is None:
                    return kernel
                if impl is not None:
                    raise ValueError(f"{self.name}: impl={impl!r} refuses: {reason}")
        if impl is not None:
            names = ", ".join(repr(kernel.name) for kernel in self.kernels)
            raise ValueError(f"{self.name}: impl: expected None, {names} or 'eager', got {impl!r}")
        return None

    def __call__(self, *args, impl: str | None = None):
        kernel = self.choose(args, impl)
        return self.reference(*args) if kernel is None else kernel.run(*args)

    def explain(self, *args) -> str:
        """One line per implementation, in the order of trial: whether it runs on `args`, or why
        not, or why only when named.
        """
        candidates = self.candidates(args)
        lines = []
        for kernel in [*candidates, *(k for k in self.kernels if k not in candidates)]:
            status = kernel.refuses(args)
            if status is None and kernel not in candidates:
                capability = machine.capability_of(machine.first(args))
                assert capability  # without a GPU all are candidates
                why = order.exclusion_reason(self.name, kernel.name, capability, _pixels(args))
                status = f"runs when named, {why}"
            lines.append(f"{self.name}: {kernel.name}: {status or 'runs'}")
        return "\n".join([*lines, f"{self.name}: eager: runs"])

    def _shaped_as_reference(self, *args):
        first = machine.first(args)
        out = self.reference(*args)
        if isinstance(out, tuple):
            return tuple(layout.empty(first, one.shape, one.dtype) for one in out)
        return layout.empty(first, out.shape, out.dtype)


def _pixels(args) -> int:
    """Height times width of the first tensor."""
    shape = machine.first(args).shape
    return shape[-1] * shape[-2] if len(shape) > 1 else shape.numel()


def explain(device: str | None = None) -> str:
    """Describes the machine, and for every op which implementations run on `device`, or why not.

    Uses each op's first sample case, in float16 on a GPU and float32 elsewhere. For your own
    arguments call the op's method:
    `espan_kernels.OPS["conv3x3"].explain(x, weight, bias, "none", None)`.

    Args:
        device: "cpu", "cuda", ...; None means the first GPU, else the CPU.

    Returns:
        Lines of text: the machine, then one line per op and implementation.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device == "cpu" else torch.float16
    lines = [machine.describe()]
    if DEFAULT_IMPL:
        lines.append(f"ESPAN_IMPL={DEFAULT_IMPL}: calls without impl use this one")
    elif machine.INTERPRETED:
        lines.append('calls without impl run eager: the interpreter needs impl="triton"')
    for op in OPS.values():
        lines.append(op.explain(*op.make(op.cases[0], dtype, device)))
    return "\n".join(lines)
