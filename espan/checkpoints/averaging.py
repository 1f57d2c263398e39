"""Averages the weights of networks: the mean of several fine-tunes often beats each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from espan.checkpoints.weights import load
from espan.errors import InputError
from espan.networks.network import Network


def average(paths: Sequence[str | Path]) -> Network:
    """Averages the weights of several weights files.

    Sums in float64 and rounds once, to float32. Files in training form are folded first.

    Args:
        paths: two or more files or built-in names, as for `load`.

    Returns:
        The network in eval mode, in float32, on the CPU.

    Raises:
        InputError: fewer than two files, or two files with different networks; both are named.
        WeightsError: `load` cannot read a file.
    """
    if len(paths) < 2:
        raise InputError(f"average: expected two or more weights files, got {len(paths)}")
    # Not a dict: a file named twice counts twice.
    return mean([(str(path), load(path)) for path in paths])


@torch.no_grad()
def mean(nets: Sequence[tuple[str, Network]]) -> Network:
    """Averages folded networks, given as (name for error messages, network).

    Raises InputError if the networks differ in more than weights.
    """
    check_alike(nets)
    states = [net.state_dict() for _, net in nets]
    first = nets[0][1]
    result = type(first)(**first.config)
    result.load_state_dict(
        {
            key: torch.stack([state[key].double().cpu() for state in states]).mean(0).float()
            for key in states[0]
        }
    )
    return result.eval()


def check_alike(nets: Sequence[tuple[str, Network]]) -> None:
    """Raises InputError if a network has another architecture or config than the first one."""
    (first, one), *others = nets
    for name, other in others:
        if differences := _differences(_config_of(one), _config_of(other)):
            raise InputError(f"average: {first} and {name} are different networks: {differences}")


def _config_of(net: Network) -> dict[str, object]:
    return {"architecture": type(net).__name__, "scale": net.scale, **net.config}


def _differences(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    # Settings of different architectures cannot be compared.
    keys = ["architecture"] if one["architecture"] != other["architecture"] else [*one]
    return ", ".join(f"{key} {one[key]} and {other[key]}" for key in keys if one[key] != other[key])
