"""The mean of several networks' weights: of fine-tunes of one network it is often the best one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from espan.checkpoints.weights import load
from espan.errors import InputError
from espan.networks.network import Network


def average(paths: Sequence[str | Path]) -> Network:
    """The network whose weights are the means of those of several weights files.

    Summed in float64 and rounded once, to float32; files in train form are folded first.

    Args:
        paths: two or more files, or built-in names, that `load` reads.

    Returns:
        The network in eval mode, in float32, on the CPU.

    Raises:
        InputError: fewer than two files, or two that hold different networks; both are named.
        WeightsError: a file holds no network.
    """
    if len(paths) < 2:
        raise InputError(f"average: expected two or more weights files, got {len(paths)}")
    # A list: a file that is named twice counts twice.
    return mean([(str(path), load(path)) for path in paths])


@torch.no_grad()
def mean(nets: Sequence[tuple[str, Network]]) -> Network:
    """The mean of folded networks, each with the name it is called in errors.

    Raises InputError for networks that are not alike.
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
    """Raises InputError, naming both, where a network differs in form from the first one."""
    (first, one), *others = nets
    for name, other in others:
        if differences := _differences(_form(one), _form(other)):
            raise InputError(f"average: {first} and {name} are different networks: {differences}")


def _form(net: Network) -> dict[str, object]:
    return {"architecture": type(net).__name__, "scale": net.scale, **net.config}


def _differences(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    # Another architecture has other settings: what they are called says nothing more.
    keys = ["architecture"] if one["architecture"] != other["architecture"] else [*one]
    return ", ".join(f"{key} {one[key]} and {other[key]}" for key in keys if one[key] != other[key])
