"""An op: its eager definition, its kernels, and the choice among them."""

import importlib
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from espan_kernels import layout, machine, order

# The implementation to take where a call names none. Like a named one it never falls back.
DEFAULT_IMPL = os.environ.get("ESPAN_IMPL") or None

OPS: dict[str, "Op"] = {}


@cache
def _load(entry: str) -> Callable:
    """The launcher that `entry` ("package.module:function") names, imported on first use."""
    module, function = entry.split(":")
    return getattr(importlib.import_module(module), function)


class Kernel:
    """One implementation of an op: why it refuses, or the registered op that runs it."""

    def __init__(self, name: str, run: Callable | None, refusals: tuple[Callable, ...]):
        self.name = name
        self.run: Any = run  # None where it always refuses
        self.refusals = refusals

    def refuses(self, args) -> str | None:
        """The first reason against running on `args`; None: it runs."""
        for refusal in self.refusals:
            if (reason := refusal(*args)) is not None:
                return reason
        return None


class Op:
    """`op(*args, impl=None)` runs the first kernel of `tried` that does not refuse, else the
    reference.

    `reference(*args)` is the definition: plain PyTorch, any device and dtype, annotated (its
    annotations are the schema of every kernel). `make(case, dtype, device)` gives sample arguments
    for each of `cases`, the usual case first. `fake(*args)` gives a kernel's outputs without
    their values; by default they are shaped as the reference's and laid out, by `layout.empty`,
    as the first tensor is. `backward` and `setup_context` are those of
    `torch.library.register_autograd`, written once for all kernels.

    The choice is plain Python on metadata, outside of what is registered with torch.library, so
    `torch.compile` traces through it and fuses the eager form.
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
        """Append a kernel: its launcher and what makes it refuse.

        Where nothing was measured, those before are taken to be faster.
        """

        def launch(*args):
            # Triton launches on the current device, whatever device its tensors are on.
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

    def without(self, impl: str, reason: str):
        """Append an implementation that does not exist, and say why."""
        self.kernels.append(Kernel(impl, None, (lambda *args: reason,)))

    def tried(self, args) -> list[Kernel]:
        """The kernels that a call naming none may take, in the order in which it tries them."""
        capability = machine.capability_of(machine.first(args))
        if capability is None:
            return self.kernels
        names = [kernel.name for kernel in self.kernels]
        wanted = order.fastest_first(self.name, names, capability, _pixels(args))
        return [self.kernels[names.index(name)] for name in wanted]

    def choose(self, args, impl: str | None = None) -> Kernel | None:
        """The kernel to run on `args`; None stands for the reference."""
        impl = impl or DEFAULT_IMPL
        if impl == "eager" or (impl is None and machine.INTERPRETED):
            return None
        for kernel in self.tried(args) if impl is None else self.kernels:
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
        """One line per implementation, in the order in which they are tried: whether it runs on
        `args`, or why it does not or only when named."""
        tried = self.tried(args)
        lines = []
        for kernel in [*tried, *(k for k in self.kernels if k not in tried)]:
            says = kernel.refuses(args)
            if says is None and kernel not in tried:
                capability = machine.capability_of(machine.first(args))
                assert capability  # elsewhere all are tried
                why = order.why_not(self.name, kernel.name, capability, _pixels(args))
                says = f"runs when named, {why}"
            lines.append(f"{self.name}: {kernel.name}: {says or 'runs'}")
        return "\n".join([*lines, f"{self.name}: eager: runs"])

    def _shaped_as_reference(self, *args):
        first = machine.first(args)
        out = self.reference(*args)
        if isinstance(out, tuple):
            return tuple(layout.empty(first, one.shape, one.dtype) for one in out)
        return layout.empty(first, out.shape, out.dtype)


def _pixels(args) -> int:
    """Height times width of the first picture among the arguments."""
    shape = machine.first(args).shape
    return shape[-1] * shape[-2] if len(shape) > 1 else shape.numel()


def explain(device: str | None = None) -> str:
    """What this machine has, and for every op which implementations run on `device`, or why not.

    Asked with each op's first case, in float16 on a GPU and float32 elsewhere. For arguments
    of your own ask the op: `espan_kernels.OPS["conv3x3"].explain(x, weight, bias, "none", None)`.

    Args:
        device: "cpu", "cuda", ...; None is the first GPU, else the CPU.

    Returns:
        Lines of text: the machine, then one line per op and implementation.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device == "cpu" else torch.float16
    lines = [machine.describe()]
    if DEFAULT_IMPL:
        lines.append(f"ESPAN_IMPL={DEFAULT_IMPL}: every call that names no impl takes this one")
    elif machine.INTERPRETED:
        lines.append('calls that name no impl run eager: the interpreter is for impl="triton"')
    for op in OPS.values():
        lines.append(op.explain(*op.make(op.cases[0], dtype, device)))
    return "\n".join(lines)
