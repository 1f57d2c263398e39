"""Memory that a run will take, and a refusal before its first step where there is not so much."""

import torch

from espan.errors import LimitError
from espan.networks.espan import ESPAN
from espan.system import memory
from espan.training.config import TrainConfig

# Measured on a CPU with 8 to 32 patches of 48 x 48, 32 and 64 channels, 2 to 8 blocks. What the
# backward pass keeps, in feature maps of float32: for each convolution in the blocks, and around
# them; and for the tail of a student.
PER_CONV, AROUND, STUDENT = 3.05, 7, 6
# The share of that in mixed precision, whose maps are kept in both kinds of numbers.
MIXED = 0.9
# Copies of the result in float32: of the network and its loss, in full and in mixed precision; of
# the terms of the loss that make copies of their own, and of teachers.
RESULTS, RESULTS_MIXED = 14, 5
OF_TERMS = {"dct": 13, "highpass": 4, "teacher": 6}
# Copies of the weights: their own, the average's, the gradients', the optimizer's and its work, and
# the gradients of two terms of the loss, whose cosine the log tells.
COPIES, COPIES_MUON = 8, 10
# What any run takes.
BASE = 24 << 20
# Batches that a worker has ready.
AHEAD = 2


def needed(config: TrainConfig, processes: int = 1) -> int:
    """Bytes that one of so many processes takes to train a stage, near the most that was seen."""
    pixels = config.batch // processes * config.patch**2
    mixed = config.precision != "fp32"
    maps = PER_CONV * (3 * config.blocks + config.last_convs) + AROUND
    results = float(RESULTS_MIXED if mixed else RESULTS)
    if config.student is not None:
        maps, results = maps + STUDENT, 2 * results
    results += sum(copies for name, copies in OF_TERMS.items() if getattr(config, name))
    values = config.channels * maps * (MIXED if mixed else 1) + 3 * config.scale**2 * results
    copies = COPIES_MUON if config.muon_lr else COPIES
    return BASE + 4 * (copies * _weights(config) + int(pixels * values)) + _ahead(config)


def check_memory(config: TrainConfig, device: torch.device, processes: int, here: int) -> None:
    """LimitError for a stage that will not fit; `here` of all processes are on this machine."""
    need, free = needed(config, processes), memory.free_on(device)
    if free is None:
        need, free = here * need, memory.available()
    if free is not None and need > free:
        raise LimitError(
            f"stage {config.name!r} would take about {need / 2**30:,.1f} GiB of memory on {device} "
            f"and {free / 2**30:,.1f} GiB are free; take a smaller batch, patch or network"
        )


def _weights(config: TrainConfig) -> int:
    """Numbers in the network, branches included; none of them is made."""
    with torch.device("meta"):
        net = ESPAN(config.channels, config.blocks, config.last_convs, config.scale, config.rep)
    return sum(weights.numel() for weights in net.parameters())


def _ahead(config: TrainConfig) -> int:
    """Bytes of the batches that workers have ready."""
    return AHEAD * config.workers * config.batch * 3 * config.patch**2 * (1 + config.scale**2)
