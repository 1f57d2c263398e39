"""The backend of `espan_kernels`: fused ops, a kernel for each, and the buffers of their values."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from espan.backends.base import Work, bound
from espan.backends.cuda import Launch, launch_of, needs_scratch
from espan.backends.lowering import lower
from espan.backends.program import IMAGE, RESULT, Fused, Tail, released
from espan.networks.network import Network
from espan.system import memory
from espan_kernels import layout, machine, op, order
from espan_kernels.op import Kernel

# The kernels that use the NC/8HW8 layout.
CUDA = ("cuda", "cuda_wgmma")
# Height and width of the images for which kernels are chosen.
FRAME = 540, 960


@dataclass(frozen=True)
class Chosen:
    """The kernel of a step, None for the op's reference; (name, reason) of each refused one."""

    kernel: Kernel | None
    refused: tuple[tuple[str, str], ...] = ()
    # Set for a CUDA kernel, which uses the NC/8HW8 layout.
    launch: Launch | None = None

    @property
    def name(self) -> str:
        return self.kernel.name if self.kernel else "eager"


class Plan:
    """A backend: `Plan(net)(x)` equals `net(x)`, computed by the ops of `espan_kernels`.

    net: a folded ESPAN, SPAN or SPANF; its weights are copied.
    impl: None uses the fastest implementation of each op; "triton" and "eager" use only that one.
    "cuda" prefers CUDA kernels, "cuda_wgmma" those for compute capability 9.0; a step without one
    falls back to the next implementation, and `explain` gives the reason. Raises ValueError if no
    step has one, or an op lacks the implementation.
    """

    def __init__(self, net: Network, impl: str | None = None):
        with torch.no_grad():
            self.steps = lower(net)
        some = next(net.parameters())
        self.dtype, self.scale = some.dtype, net.scale
        self._like = torch.empty(0, dtype=self.dtype, device=some.device)
        with torch.no_grad():
            tail = self.steps[-1]
            assert isinstance(tail, Tail)  # the last step of every network
            self.limit = tail.limit()
            self._channels = {IMAGE: 3} | {step.makes: step.channels for step in self.steps}
            self.chosen = self._choose(impl or op.DEFAULT_IMPL)
        # Whether the tail's kernel checks its inputs itself.
        self._tail_checks = self.chosen[-1].name == "cuda_wgmma"
        self._released = released(self.steps)
        self._width = net.config["channels"]
        self.places, self.buffers = self._place()

    @torch.no_grad()
    def __call__(
        self,
        x: Tensor,
        *,
        clamp: bool = False,
        uint8: bool = False,
        buffers: list[Tensor] | None = None,
    ) -> Tensor:
        """x (N, 3, H, W) -> (N, 3, scale*H, scale*W), in channels_last memory, without a gradient.

        x: on the network's device, in its dtype or uint8. clamp, uint8: same as for `tail`.
        buffers: from `allocate`, not shared with another call; None allocates them.
        """
        return self._run(x, buffers, clamp=clamp, uint8=uint8)[0]

    @torch.no_grad()
    def checked(self, x: Tensor, buffers: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Returns (the image in uint8, a tensor of one bool: whether to trust it).

        uint8 cannot hold a NaN. A NaN comes from the inputs of the tail or from an overflow of its
        sum; inputs that are finite and below `limit` exclude both.
        """
        trusted = torch.ones(1, dtype=torch.bool, device=x.device) if self._tail_checks else None
        y, inputs = self._run(x, buffers, clamp=True, uint8=True, trusted=trusted)
        if trusted is not None:
            return y, trusted[0]
        # aminmax would copy tensors that are not contiguous.
        flat = [one.permute(0, 2, 3, 1) if one.dim() == 4 else one for one in inputs]
        ends = [end.float() for one in flat for end in torch.aminmax(one)]
        return y, torch.stack(ends).abs().amax() <= self.limit

    def explain(self) -> str:
        """A line per step with its buffer and kernel; then one per op and faster kernel refused."""
        lines = []
        for step, chosen in zip(self.steps, self.chosen, strict=True):
            where = f" in buffer {self.places[step.makes]}" if step.makes in self.places else ""
            lines.append(f"{step}{where}: {chosen.name}")
        for name in ("cuda_wgmma", "cuda", "triton"):
            lines += [f"no {name} for {reason}" for reason in self.refusals(name)]
        return "\n".join(lines)

    def refusals(self, impl: str) -> list[str]:
        """The ops for which `impl` was tried and refused, with the reasons."""
        found = {
            f"{step.name}: {reason}": None
            for step, chosen in self._fused()
            for name, reason in chosen.refused
            if name == impl
        }
        return [*found]

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes of the buffers of `allocate`, plus a bound for the ops without a CUDA kernel."""
        pixels = n * height * width
        values = self.buffers * pixels * -(-self._width // layout.PLANE) * layout.PLANE
        launched = [one.launch is not None for step, one in self._fused()]
        others = 0 if all(launched) else memory.for_pixels(pixels, self._width, self.dtype)
        return values * self.dtype.itemsize + others

    def bind(self, pixels: Tensor) -> Work:
        n, channels, height, width = pixels.shape
        buffers = self.allocate(n, height, width)
        if pixels.dtype == torch.uint8 and channels == 3:
            return lambda: self.checked(pixels, buffers)
        return bound(partial(self, buffers=buffers), self.dtype, pixels)

    def allocate(self, n: int, height: int, width: int) -> list[Tensor]:
        """Buffers for the feature maps that CUDA kernels write for n images; steps share them."""
        shape = n, -(-self._width // layout.PLANE), height, width, layout.PLANE
        return [layout.empty(self._like, shape) for _ in range(self.buffers)]

    def _fused(self) -> list[tuple[Fused, Chosen]]:
        """The steps that are ops, with their kernels."""
        pairs = zip(self.steps, self.chosen, strict=True)
        return [(step, chosen) for step, chosen in pairs if isinstance(step, Fused)]

    def _run(
        self,
        x: Tensor,
        buffers: list[Tensor] | None,
        *,
        clamp: bool,
        uint8: bool,
        trusted: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns (the result, the inputs of the last step)."""
        flags = {"clamp": clamp, "uint8": uint8}
        n, _, height, width = x.shape
        buffers = self.allocate(n, height, width) if buffers is None else buffers
        values = {IMAGE: x.contiguous(memory_format=torch.channels_last)}
        for i, (step, chosen) in enumerate(zip(self.steps, self.chosen, strict=True)):
            nc8 = chosen.launch is not None
            inputs = [self._in_layout(values, name, nc8) for name in step.reads]
            if chosen.launch:
                place = self.places.get(step.makes)
                out = self._result(x, uint8) if place is None else buffers[place]
                if out.numel():
                    scratch = buffers[-1] if buffers else None
                    # The first step must wait for copies of the weights: no overlap.
                    options = {"scratch": scratch, "trusted": trusted, "overlap": i > 0}
                    chosen.launch(out, *inputs, **options, **flags)
            elif chosen.kernel and isinstance(step, Fused):
                out = chosen.kernel.run(*step.arguments(*inputs, **flags))
            else:
                out = step.eager(*inputs, **flags)
            values[step.makes] = out
            for name in self._released[i]:
                del values[name]
        return out, inputs

    def _result(self, x: Tensor, uint8: bool) -> Tensor:
        """Uninitialised memory for the result of x."""
        n, _, height, width = x.shape
        shape = n, 3, self.scale * height, self.scale * width
        dtype = torch.uint8 if uint8 else self.dtype
        return layout.empty(self._like, shape, dtype, channels_last=True)

    def _in_layout(self, values: dict[str, Tensor], name: str, nc8: bool) -> Tensor:
        """A value in NC/8HW8 or channels-last layout; `values` keeps it so from here on."""
        value = values[name]
        if name == IMAGE:
            return value
        if nc8 and value.dim() == 4:
            values[name] = layout.to_nc8hw8(value)
        elif value.dim() == 5 and not nc8:
            unpacked = layout.from_nc8hw8(value, self._channels[name])
            values[name] = unpacked.contiguous(memory_format=torch.channels_last)
        return values[name]

    def _choose(self, impl: str | None) -> list[Chosen]:
        chosen = []
        for step in self.steps:
            if not isinstance(step, Fused):
                chosen.append(Chosen(None))
                continue
            one = self._like.new_empty(())
            inputs = [one.expand(1, self._channels[name], *FRAME) for name in step.reads]
            chosen.append(_choose(step, step.arguments(*inputs), impl))
        if impl in CUDA and not any(one.name == impl for one in chosen):
            reasons = dict.fromkeys(one.refused[0][1] for one in chosen if one.refused)
            raise ValueError(f"impl={impl!r} refuses: {'; '.join(reasons)}")
        return chosen

    def _place(self) -> tuple[dict[str, int], int]:
        """Returns ({value written by a CUDA kernel: its buffer}, the number of buffers).

        A buffer is reused after the last step that reads its value. If a step needs scratch memory,
        it is the last buffer.
        """
        places: dict[str, int] = {}
        free: list[int] = []
        count = 0
        for step, chosen, done in zip(self.steps, self.chosen, self._released, strict=True):
            if chosen.launch and step.makes != RESULT:
                if not free:
                    free, count = [count], count + 1
                places[step.makes] = free.pop()
            free += sorted(places[name] for name in done if name in places)
        scratch = any(needs_scratch(step) for step, chosen in self._fused() if chosen.launch)
        return places, count + scratch


def _choose(step: Fused, args: tuple, impl: str | None) -> Chosen:
    """The kernel for the step's op with such arguments."""
    if impl not in (None, *CUDA):
        return Chosen(step.op.choose(args, impl))
    refused: list[tuple[str, str]] = []
    tried = step.op.candidates(args) if impl is None else step.op.kernels
    kernels = [kernel for kernel in tried if kernel.name != "cuda_wgmma"]
    # wgmma kernels come first if named, or if measured to be the fastest.
    if impl == "cuda_wgmma" or (impl is None and step.op.name in order.WGMMA_FIRST):
        kernels = [k for k in step.op.kernels if k.name == "cuda_wgmma"] + kernels
    # In Triton's interpreter only kernels that `impl` names run.
    named = CUDA if impl in CUDA else ()
    kernels = [k for k in kernels if k.name in named or not machine.INTERPRETED]
    # CUDA first: the measured order is of single ops on channels-last tensors, but between CUDA
    # kernels values stay in NC/8HW8 layout.
    kernels.sort(key=lambda kernel: kernel.name not in CUDA)
    for kernel in kernels:
        reason = kernel.refuses(args)
        if reason is None:
            launch = launch_of(step, kernel.name) if kernel.name in CUDA else None
            return Chosen(kernel, tuple(refused), launch)
        refused.append((kernel.name, reason))
    return Chosen(None, tuple(refused))
