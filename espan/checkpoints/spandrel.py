"""Support for spandrel, the library with which ComfyUI, chaiNNer and InvokeAI load networks."""

import re
from typing import Any

import torch
from torch import Tensor

from espan.checkpoints.untrusted import State
from espan.errors import InputError
from espan.networks.espan import ESPAN
from espan.networks.layers import kernel_of
from espan.networks.network import Network
from espan.networks.span import DIV2K_MEAN, SPAN
from espan.networks.spanf import SPANF

# Blocks and pixel range of spandrel's own SPAN. Its mean is the paper's or zero.
BLOCKS, RANGE = 6, 255.0


def register_spandrel() -> None:
    """Lets spandrel's `ModelLoader` load folded networks that `espan.save` wrote. Idempotent.

    Supports ESPAN, SPAN and SPAN-F. spandrel reads the weights of a file but not its metadata, so a
    SPAN gets the paper's mean and pixel range; for a SPAN with others, `espan.export` writes
    spandrel's own layout.

    Raises:
        InputError: spandrel is not installed.
    """
    try:  # not in an extra: it requires torchvision, which may install another torch
        import spandrel
    except ImportError as error:
        raise InputError(f"register_spandrel() needs spandrel: {error}") from error

    class Ours(spandrel.Architecture):
        """One of our networks; its id differs from the id of spandrel's own SPAN."""

        def __init__(self, network: type[Network]):
            def detect(state: State) -> bool:
                return _detect(state) is network

            super().__init__(id=f"espan.{network.__name__}", name=network.__name__, detect=detect)
            self.network = network

        def load(self, state_dict: State) -> Any:
            config = _config(self.network, state_dict)
            net = self.network(**config)
            return spandrel.ImageModelDescriptor(
                net,
                state_dict,
                architecture=self,
                purpose="SR",
                tags=[f"{config['channels']}nf"],
                supports_half=True,
                supports_bfloat16=True,
                scale=net.scale,
                input_channels=3,
                output_channels=3,
            )

    supports = [spandrel.ArchSupport.from_architecture(Ours(each)) for each in (ESPAN, SPAN, SPANF)]
    spandrel.MAIN_REGISTRY.add(*supports, ignore_duplicates=True)


def _detect(state: State) -> type[Network] | None:
    """The class of our network that has these keys."""
    if {"block_1.0.weight", "conv_2.weight", "conv_cat.weight"} <= state.keys():
        return SPANF
    if not {"conv_1.weight", "blocks.0.convs.0.weight", "upsampler.weight"} <= state.keys():
        return None
    return ESPAN if state["conv_1.weight"].shape[-1] == 9 else SPAN


def _config(network: type[Network], state: State) -> dict[str, int]:
    """Constructor arguments for a network with these weights."""
    convs = [_count(state, rf"blocks\.{i}\.convs\.(\d+)\.") for i in range(len(state))]
    blocks = len([count for count in convs if count == 3])
    up = state["conv_2.weight" if network is SPANF else "upsampler.weight"]
    config = {
        "channels": state["conv_cat.weight"].shape[0],
        "blocks": blocks + (network is SPANF),
        "scale": round((up.shape[0] / 3) ** 0.5),
    }
    if network is ESPAN:
        config["last_convs"] = next((count for count in convs if count in (1, 2)), 0)
    return config


def _count(state: State, pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def to_spandrel_layout(net: SPAN) -> State:
    """The weights of a folded SPAN in the layout of spandrel's SPAN, which many programs read.

    spandrel's convolutions merge their branches at each call. Merging the branches written here
    multiplies the kernel by 1 and 0 only, which is exact. Raises InputError for a SPAN that
    spandrel's class cannot represent.
    """
    mean, blocks = net.config["mean"], len(net.blocks)
    if blocks != BLOCKS:
        raise InputError(f"spandrel's SPAN has {BLOCKS} blocks, this one {blocks}")
    if mean not in (DIV2K_MEAN, (0.0, 0.0, 0.0)):
        raise InputError(f"spandrel's SPAN subtracts {DIV2K_MEAN} or nothing, this one {mean}")
    state: State = {}
    if not any(mean):  # pixels stay in 0..1
        state["no_norm"] = torch.zeros(1)
    factor = net.img_range / (RANGE if any(mean) else 1.0)
    weight, bias = kernel_of(net.conv_1)
    state |= _branches("conv_1", weight * factor, bias)
    for i, block in enumerate(net.blocks, 1):
        for j, conv in enumerate(block.convs, 1):
            state |= _branches(f"block_{i}.c{j}_r", *kernel_of(conv))
    state |= _branches("conv_2", *kernel_of(net.conv_2))
    for ours, theirs in (("conv_cat", "conv_cat"), ("upsampler", "upsampler.0")):
        for part, tensor in getattr(net, ours).state_dict().items():
            state[f"{theirs}.{part}"] = tensor
    return state


def _branches(name: str, weight: Tensor, bias: Tensor) -> State:
    """Branches that merge into this kernel, and the merged kernel itself (eval_conv).

    conv.0 is 1x1 (c_in -> 2 c_in), conv.1 3x3 (-> 2 c_out), conv.2 1x1 (-> c_out), sk a 1x1 of 0.
    """
    c_out, c_in = weight.shape[:2]
    middle = weight.new_zeros(2 * c_out, 2 * c_in, 3, 3)
    middle[:c_out, :c_in] = weight
    parts = {
        "sk": (weight.new_zeros(c_out, c_in, 1, 1), torch.zeros_like(bias)),
        "conv.0": (torch.eye(2 * c_in, c_in)[..., None, None], bias.new_zeros(2 * c_in)),
        "conv.1": (middle, bias.new_zeros(2 * c_out)),
        "conv.2": (torch.eye(c_out, 2 * c_out)[..., None, None], bias),
        "eval_conv": (weight, bias),
    }
    return {
        f"{name}.{part}.{kind}": tensor
        for part, tensors in parts.items()
        for kind, tensor in zip(("weight", "bias"), tensors, strict=True)
    }
