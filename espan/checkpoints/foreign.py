"""Weights files of other projects: detected by their keys, renamed to our keys."""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch

from espan.checkpoints.untrusted import State, join_names, one_line
from espan.errors import WeightsError
from espan.networks.espan import ESPAN
from espan.networks.network import Network
from espan.networks.span import SPAN
from espan.networks.spanf import SPANF

# Class and constructor arguments of a network, and its state with our keys.
Found = tuple[type[Network], dict, State]


class Layout(NamedTuple):
    """A foreign file format: its required keys, and the function that converts it."""

    name: str
    keys: tuple[str, ...]
    build: Callable[[State], Found]


def _rename(state: State, *rules: tuple[str, str]) -> State:
    """Renames keys by regular expressions; then @n becomes n - 1, to count from 0."""
    renamed = {}
    for key, tensor in state.items():
        for pattern, to in rules:
            key = re.sub(pattern, to, key)
        key = re.sub(r"@(\d+)", lambda m: str(int(m[1]) - 1), key)
        renamed[key] = tensor
    return renamed


def _count(state: State, pattern: str) -> int:
    return len({m[1] for key in state if (m := re.match(pattern, key))})


def _scale(state: State, key: str) -> int:
    return round((state[key].shape[0] / 3) ** 0.5)


def _espan(state: State) -> Found:
    blocks = _count(state, r"block_(\d+)\.")
    config = {
        "channels": state["conv_1.eval_conv.weight"].shape[0],
        "blocks": blocks,
        "last_convs": _count(state, r"teacher_block_seq\.c(\d)_r"),
        "scale": _scale(state, "tea_upsampler.0.eval_conv.weight"),
    }
    state = _rename(
        state,
        (r"\.eval_conv", ""),
        (r"^block_(\d+)\.c(\d)_r", r"blocks.@\1.convs.@\2"),
        (r"^teacher_block_seq\.c(\d)_r", rf"blocks.{blocks}.convs.@\1"),
        (r"^tea_upsampler\.0", "upsampler"),
        (r"^tea_", ""),
    )
    return ESPAN, config, state


_SPAN_BLOCKS = (r"^block_(\d+)\.c(\d)_r", r"blocks.@\1.convs.@\2")


def _span_config(state: State, rep: str | None) -> dict:
    no_norm = "no_norm" in state  # neosr marks networks without normalisation with this key
    return {
        "channels": state["conv_cat.weight"].shape[0],
        "blocks": _count(state, r"block_(\d+)\."),
        "scale": _scale(state, "upsampler.0.weight"),
        "rep": rep,
        **({"mean": (0.0, 0.0, 0.0), "img_range": 1.0} if no_norm else {}),
    }


def _span_slim(state: State) -> Found:
    config = _span_config(state, rep=None)
    state = {key: tensor for key, tensor in state.items() if key != "no_norm"}
    state = _rename(state, (r"\.eval_conv", ""), _SPAN_BLOCKS, (r"^upsampler\.0", "upsampler"))
    return SPAN, config, state


def _span_train(state: State) -> Found:
    config = _span_config(state, rep="span")
    # Drops eval_conv, the authors' cache of the merged kernel.
    state = {k: v for k, v in state.items() if ".eval_conv." not in k and k != "no_norm"}
    state = _rename(
        state,
        (r"\.sk\.", ".branches.0.0."),
        (r"\.conv\.(\d)\.", r".branches.1.\1."),
        _SPAN_BLOCKS,
        (r"^upsampler\.0", "upsampler"),
    )
    return SPAN, config, state


def _spanf(state: State) -> Found:
    near = state["conv_near.weight"]
    one_hot = torch.zeros_like(near)
    one_hot[:, :, 1, 1] = 1
    if not torch.equal(near, one_hot):
        raise WeightsError("conv_near is trained; expected the fixed nearest-neighbour kernel")
    config = {
        "channels": state["conv_cat.weight"].shape[0],
        "blocks": _count(state, r"block_(\d+)\."),
        "scale": _scale(state, "conv_2.eval_conv.weight"),
    }
    state = {key: tensor for key, tensor in state.items() if key != "conv_near.weight"}
    # The first block, without a gate, is not in `blocks`: block_2 becomes blocks.0.
    state = _rename(
        state, (r"\.eval_conv", ""), (r"^block_1\.c(\d)_r", r"block_1.@\1"), _SPAN_BLOCKS
    )
    state = {
        re.sub(r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) - 1}", key): tensor
        for key, tensor in state.items()
    }
    return SPANF, config, state


LAYOUTS = (
    Layout(
        "ESPAN (NTIRE 2025, folded)",
        (
            "conv_1.eval_conv.weight",
            "block_1.c1_r.eval_conv.weight",
            "teacher_block_seq.c1_r.eval_conv.weight",
            "tea_conv_cat.weight",
            "tea_upsampler.0.eval_conv.weight",
        ),
        _espan,
    ),
    Layout(
        "SPAN (training checkpoint)",
        (
            "conv_1.sk.weight",
            "conv_1.conv.0.weight",
            "block_1.c1_r.conv.0.weight",
            "conv_cat.weight",
            "upsampler.0.weight",
        ),
        _span_train,
    ),
    Layout(
        "SPAN (folded)",
        (
            "conv_1.eval_conv.weight",
            "block_1.c1_r.eval_conv.weight",
            "conv_2.eval_conv.weight",
            "conv_cat.weight",
            "upsampler.0.weight",
        ),
        _span_slim,
    ),
    Layout(
        "SPAN-F (NTIRE 2025, folded)",
        (
            "conv_near.weight",
            "block_1.c1_r.eval_conv.weight",
            "conv_cat.weight",
            "conv_2.eval_conv.weight",
        ),
        _spanf,
    ),
)


def recognise(state: State) -> Found:
    for layout in LAYOUTS:
        if all(key in state for key in layout.keys):
            if flat := [key for key in layout.keys if state[key].ndim != 4]:
                raise WeightsError(
                    f"looks like {layout.name}, but {flat[0]} has shape "
                    f"{tuple(state[flat[0]].shape)}, expected a convolution with 4 dimensions"
                )
            try:
                return layout.build(state)
            except (ValueError, IndexError, KeyError) as error:
                raise WeightsError(f"looks like {layout.name}, but {one_line(error)}") from error
    nearest = max(LAYOUTS, key=lambda each: sum(k in state for k in each.keys) / len(each.keys))
    missing = [key for key in nearest.keys if key not in state]
    raise WeightsError(
        "not a known network: it has neither the metadata of this package nor the keys of "
        f"{', '.join(layout.name for layout in LAYOUTS)}. Nearest: {nearest.name}, without "
        f"{join_names(missing)}; the file has {join_names(list(state))}"
    )
