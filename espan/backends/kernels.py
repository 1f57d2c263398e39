"""Plans: a folded network as a list of fused ops, with who runs each and where its values lie."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espan.backends.program import PICTURE, RESULT, STEPS, Step
from espan.networks.models import Network
from espan_kernels import layout, machine, op
from espan_kernels.op import Kernel

# Height and width of the pictures for which kernels are chosen.
FRAME = 540, 960


@dataclass(frozen=True)
class Chosen:
    """Who runs a step, None for the op's reference; (name, reason) of those before it."""

    kernel: Kernel | None
    refused: tuple[tuple[str, str], ...] = ()
    # Weights for the launch of a CUDA kernel, which runs on planes.
    packed: Any = None

    @property
    def name(self) -> str:
        return self.kernel.name if self.kernel else "eager"


class Plan:
    """`Plan(net)(x)` equals `net(x)`, but runs through the ops of `espan_kernels`.

    net: a folded ESPAN, SPAN or SPANF; its weights are copied, a later change of it is not seen.
    impl: what every op is asked for; None lets each take its fastest, "triton" and "eager" that
    one and no other. "cuda" wants CUDA kernels, and takes the next implementation for a step that
    has none, as long as one has: `explain` says which and why. ValueError if that cannot be.
    """

    def __init__(self, net: Network, impl: str | None = None):
        if type(net) not in STEPS:
            names = ", ".join(cls.__name__ for cls in STEPS)
            raise ValueError(f"Plan: net: expected one of {names}, got {type(net).__name__}")
        if not net.folded:
            raise ValueError("Plan: net: expected a folded network, got its training form")
        self.scale, self.radius = net.scale, net.radius
        some = next(net.parameters())
        self.dtype, self.device = some.dtype, some.device
        self._like = torch.empty(0, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            self.steps: list[Step] = STEPS[type(net)](net)
            self.chosen = self._choose(impl or op.DEFAULT_IMPL)
            self.limit = self.steps[-1].limit()
        self._last_read = {name: i for i, step in enumerate(self.steps) for name in step.reads}
        self._planes = -(-net.config["channels"] // layout.PLANE)
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

        x: on the network's device, in its dtype or uint8; clamp and uint8: as of `tail`.
        buffers: of `allocate`, for this call alone; None allocates them.
        """
        return self._run(x, {"clamp": clamp, "uint8": uint8}, buffers)[0]

    @torch.no_grad()
    def checked(self, x: Tensor, buffers: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(the picture in uint8, whether it can be trusted as a tensor of one bool).

        A NaN has no uint8. It can come from what the tail reads, or from an overflow of its sum;
        where that is neither infinite nor so large as to overflow in the worst case, there is none.
        """
        y, inputs = self._run(x, {"clamp": True, "uint8": True}, buffers)
        # By pixels where they lie so: aminmax copies what is not contiguous.
        flat = [one.permute(0, 2, 3, 1) if one.dim() == 4 else one for one in inputs]
        ends = [end.float() for one in flat for end in torch.aminmax(one)]
        return y, torch.stack(ends).abs().amax() <= self.limit

    def explain(self) -> str:
        """A line for each step, who runs it and which buffer holds what it makes; then one for each
        reason why an op has none faster."""
        lines = []
        for step, chosen in zip(self.steps, self.chosen, strict=True):
            where = f" in buffer {self.places[step.makes]}" if step.makes in self.places else ""
            lines.append(f"{step}{where}: {chosen.name}")
        for name in ("cuda", "triton"):
            lines += [f"no {name} for {reason}" for reason in self.refusals(name)]
        return "\n".join(lines)

    def refusals(self, impl: str) -> list[str]:
        """The ops that `impl` was wanted for and refused, with its reasons."""
        found = {
            f"{step.op.name}: {reason}": None
            for step, chosen in zip(self.steps, self.chosen, strict=True)
            for name, reason in chosen.refused
            if name == impl
        }
        return [*found]

    def memory(self, n: int, height: int, width: int) -> int:
        """Bytes of the buffers of `allocate`."""
        values = n * self._planes * height * width * layout.PLANE
        return self.buffers * values * self.dtype.itemsize

    def allocate(self, n: int, height: int, width: int) -> list[Tensor]:
        """Memory for the values that CUDA kernels make of n pictures, a few buffers by turns."""
        shape = n, self._planes, height, width, layout.PLANE
        return [layout.empty(self._like, shape) for _ in range(self.buffers)]

    def _run(self, x: Tensor, ends: dict, buffers: list[Tensor] | None):
        """(the result, the last step's inputs)."""
        n, _, height, width = x.shape
        buffers = self.allocate(n, height, width) if buffers is None else buffers
        values = {PICTURE: x.contiguous(memory_format=torch.channels_last)}
        for i, (step, chosen) in enumerate(zip(self.steps, self.chosen, strict=True)):
            options = dict(ends) if step.makes == RESULT else {}
            as_planes = chosen.packed is not None
            inputs = [self._laid_out(values, name, as_planes) for name in step.reads]
            if as_planes:
                place = self.places.get(step.makes)
                out = self._result(x, ends["uint8"]) if place is None else buffers[place]
                if step.scratch:
                    options["scratch"] = buffers[-1]
                if out.numel():
                    step.launch(chosen.packed, out, *inputs, **options)
            elif step.op is None:
                out = step.run(*inputs)
            else:
                run = chosen.kernel.run if chosen.kernel else step.op.reference
                out = run(*step.arguments(*inputs, **options))
            values[step.makes] = out
            values = {name: v for name, v in values.items() if self._last_read.get(name, i) > i}
        return out, inputs

    def _result(self, x: Tensor, uint8: bool) -> Tensor:
        """Memory for the result of x."""
        n, _, height, width = x.shape
        shape = n, 3, self.scale * height, self.scale * width
        dtype = torch.uint8 if uint8 else self.dtype
        return layout.empty(self._like, shape, dtype, channels_last=True)

    def _laid_out(self, values: dict[str, Tensor], name: str, as_planes: bool) -> Tensor:
        """A value as planes or as a picture, and from here on kept as such."""
        value = values[name]
        if name == PICTURE:
            return value
        if as_planes and value.dim() == 4:
            values[name] = layout.to_planes(value)
        elif value.dim() == 5 and not as_planes:
            picture = layout.from_planes(value, self._channels[name])
            values[name] = picture.contiguous(memory_format=torch.channels_last)
        return values[name]

    def _choose(self, impl: str | None) -> list[Chosen]:
        self._channels = {PICTURE: 3} | {step.makes: step.channels for step in self.steps}
        chosen = []
        for step in self.steps:
            if step.op is None:
                chosen.append(Chosen(None))
                continue
            one = self._like.new_empty(())
            inputs = [one.expand(1, self._channels[name], *FRAME) for name in step.reads]
            chosen.append(_choose(step, step.arguments(*inputs), impl))
        if impl == "cuda" and not any(one.name == "cuda" for one in chosen):
            reasons = dict.fromkeys(one.refused[0][1] for one in chosen if one.refused)
            raise ValueError(f"Plan: impl='cuda' refuses: {'; '.join(reasons)}")
        return chosen

    def _place(self) -> tuple[dict[str, int], int]:
        """({value that a CUDA kernel makes: its buffer}, how many buffers there are).

        A buffer is used again once nobody reads what it holds. Scratch, if a step wants some, is
        the last one.
        """
        places, free, count = {}, [], 0
        for i, (step, chosen) in enumerate(zip(self.steps, self.chosen, strict=True)):
            if chosen.packed is not None and step.makes != RESULT:
                if not free:
                    free, count = [count], count + 1
                places[step.makes] = free.pop()
            read = {*step.reads} & {*places}
            free += sorted(places[name] for name in read if self._last_read[name] == i)
        launched = zip(self.steps, self.chosen, strict=True)
        scratch = any(step.scratch and chosen.packed is not None for step, chosen in launched)
        return places, count + scratch


def _choose(step: Step, args: tuple, impl: str | None) -> Chosen:
    """The kernel that runs the step's op on such arguments."""
    if impl not in (None, "cuda"):
        return Chosen(step.op.choose(args, impl))
    refused = []
    kernels = step.op.tried(args) if impl is None else step.op.kernels
    # In Triton's interpreter only what is asked for by name runs.
    kernels = [k for k in kernels if impl == k.name or not machine.INTERPRETED]
    # What was timed is an op by itself, on pictures. Between CUDA kernels values stay in planes.
    kernels.sort(key=lambda kernel: kernel.name != "cuda")
    for kernel in kernels:
        reason = kernel.refuses(args)
        if reason is None:
            packed = step.pack() if kernel.name == "cuda" else None
            return Chosen(kernel, tuple(refused), packed)
        refused.append((kernel.name, reason))
    return Chosen(None, tuple(refused))
