"""Estimates the memory of a run, and refuses the run before its first step if it does not fit."""

import torch

from espan.errors import LimitError
from espan.networks.espan import ESPAN
from espan.system import memory
from espan.training.config import TrainConfig

# Measured on a CPU with 8 to 32 patches of 48 x 48, 32 and 64 channels, 2 to 8 blocks. Float32
# feature maps kept for the backward pass: per convolution in the blocks, for the layers around
# them, and for the tail of a student.
PER_CONV, AROUND, STUDENT = 3.05, 7, 6
# Factor in mixed precision, which keeps feature maps in both dtypes.
MIXED = 0.9
# Float32 copies of the result: by the network and its loss, in full and in mixed precision; by
# terms of the loss that make additional copies, and by teachers.
RESULTS, RESULTS_MIXED = 14, 5
OF_TERMS = {"dct": 13, "highpass": 4, "teacher": 6}
# Copies of the weights: the weights, their average, gradients, optimizer state and temporaries, and
# the gradients of two terms of the loss, whose cosine is logged.
COPIES, COPIES_MUON = 8, 10
# Bytes of any run.
BASE = 24 << 20
# Batches that a worker prefetches.
AHEAD = 2


def needed(config: TrainConfig, processes: int = 1) -> int:
    """Bytes per process to train a stage with so many processes, close to measured peaks."""
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
    """Raises LimitError for a stage that does not fit; `here`: processes on this machine."""
    need, free = needed(config, processes), memory.free_on(device)
    if free is None:
        need, free = here * need, memory.available()
    if free is not None and need > free:
        raise LimitError(
            f"stage {config.name!r} would take about {need / 2**30:,.1f} GiB of memory on {device} "
            f"and {free / 2**30:,.1f} GiB are free; take a smaller batch, patch or network"
        )


def _weights(config: TrainConfig) -> int:
    """Number of parameters with branches, without allocating them."""
    with torch.device("meta"):
        net = ESPAN(config.channels, config.blocks, config.last_convs, config.scale, config.rep)
    return sum(weights.numel() for weights in net.parameters())


def _ahead(config: TrainConfig) -> int:
    """Bytes of the batches that workers prefetch."""
    return AHEAD * config.workers * config.batch * 3 * config.patch**2 * (1 + config.scale**2)
