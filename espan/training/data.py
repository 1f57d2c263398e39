"""Random patches of training images, augmented; a pure function of seed and step."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from espan.training.config import TrainConfig
from espan.training.degrade import degrade
from espan.training.image_pairs import ImagePairs, Pair
from espan.training.outputs import LEVELS
from espan.training.shapes import drawn


class Patches(Dataset):
    """Aligned LR and HR patches at random positions, in all eight flips and rotations.

    `patches[step * batch + i]` is patch i of the step: uint8 tensors (3, patch, patch) and
    (3, scale * patch, scale * patch), and the same part of the teachers' outputs, uint16, if the
    images have them. It depends on seed, stage, step and i only, so resumed runs and runs of
    several processes see the same patches as a single uninterrupted process.
    """

    def __init__(self, images: ImagePairs, config: TrainConfig, stage: int = 0):
        self.images, self.config, self.stage = images, config, stage

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        random = self._random(number)
        lr, hr, *outputs = self._patch(random)
        s = self.config.scale
        if self.config.mixup and random.random() < self.config.mixup:
            share = random.uniform(0, 1)
            lr, hr = (_mix(a, b, share) for a, b in zip((lr, hr), self._patch(random), strict=True))
        if self.config.cutblur and random.random() < self.config.cutblur:
            lr = _cut_in(lr, hr, s, random)
        return tuple(_channels_first(part) for part in (lr, hr, *outputs))

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """(LR (N, 3, patch, patch), HR) of a step, uint8; and the teachers' outputs, uint16."""
        size = self.config.batch
        patches = (self[step * size + i] for i in range(size))
        return tuple(torch.stack(part) for part in zip(*patches, strict=True))

    def names(self, step: int) -> list[str]:
        """Names of the images from which the patches of a step are cut."""
        numbers = range(step * self.config.batch, (step + 1) * self.config.batch)
        return [self.images.names[self._choice(self._random(number))] for number in numbers]

    def loader(
        self, first: int, last: int, rank: int, world: int, pinned: bool = False
    ) -> DataLoader:
        """Batches of steps first..last-1, each reduced to the part of process `rank`.

        pinned: in pinned memory, for asynchronous copies to a GPU.
        """
        size = self.config.batch

        def parts() -> Iterator[list[int]]:
            for step in range(first, last):
                yield list(range(step * size + rank, (step + 1) * size, world))

        workers = self.config.workers
        return DataLoader(
            self,
            batch_sampler=_Once(parts),
            num_workers=workers,
            pin_memory=pinned,
            worker_init_fn=_Signals() if workers else None,
        )

    def _random(self, number: int) -> np.random.Generator:
        step, i = divmod(number, self.config.batch)
        return np.random.default_rng((self.config.seed, self.stage, step, i))

    def _choice(self, random: np.random.Generator) -> int:
        return int(random.integers(len(self.images.pairs)))

    def _patch(self, random: np.random.Generator) -> list[np.ndarray]:
        config, pair = self.config, self.images.pairs[self._choice(random)]
        if config.shapes and random.random() < config.shapes:
            parts = drawn(config.patch, config.scale, random)
            # The HR patch of a drawing is exact; no teacher improves on it.
            taught = [np.round(parts[1] * (LEVELS / 255)).astype(np.uint16)]
            return parts + taught * (len(pair) - 2)
        parts = self._cut(pair, random)
        if random.random() < 0.5:
            parts = [part[:, ::-1] for part in parts]
        turns = int(random.integers(4))
        parts = [np.rot90(part, turns) for part in parts]
        if config.degrade:
            parts[0] = degrade(parts[1], config.scale, random)
        return parts

    def _cut(self, pair: Pair, random: np.random.Generator) -> list[np.ndarray]:
        lr, *large = pair
        s, p = self.config.scale, self.config.patch
        corner = [int(random.integers(side - p + 1)) for side in lr.shape[:2]]
        if self.config.borders and random.random() < self.config.borders:
            axis, end = random.integers(2, size=2)
            corner[axis] = (lr.shape[axis] - p) * int(end)
        y, x = corner
        parts = [lr[y : y + p, x : x + p]]
        return parts + [each[s * y : s * (y + p), s * x : s * (x + p)] for each in large]


@contextmanager
def closing(loader: DataLoader) -> Iterator[Iterator[tuple[Tensor, ...]]]:
    """A context with the batches of a loader; on exit, its workers have ended."""
    batches = iter(loader)
    try:
        yield batches
    finally:
        if isinstance(signals := loader.worker_init_fn, _Signals):
            signals.over.set()
            # PyTorch calls this only after the last batch.
            batches._shutdown_workers()  # type: ignore[attr-defined]


class _Signals:
    """Signal handlers for the workers of a loader; `DataLoader` calls this in each worker.

    Workers ignore signals to the process group, which the training process handles. It also ends
    stuck workers by SIGTERM, after it has set `over`.
    """

    def __init__(self):
        self.over = multiprocessing.Event()

    def __call__(self, _worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, _number, _frame) -> None:
        if self.over.is_set():
            os._exit(0)


class _Once:
    """A batch sampler for DataLoader: an iterable of lists of indices."""

    def __init__(self, parts):
        self.parts = parts

    def __iter__(self) -> Iterator[list[int]]:
        return self.parts()


def _channels_first(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _mix(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return np.round(share * a + (1 - share) * b.astype(np.float64)).astype(np.uint8)


def _cut_in(lr: np.ndarray, hr: np.ndarray, scale: int, random: np.random.Generator) -> np.ndarray:
    """CutBlur (Yoo et al., 2020) at LR size: every scale-th HR pixel in a random rectangle.

    The network learns not to sharpen pixels that are already sharp.
    """
    side = lr.shape[0]
    height, width = (int(side * random.uniform(0.2, 0.8)) for _ in range(2))
    y, x = random.integers(side - height + 1), random.integers(side - width + 1)
    lr = lr.copy()
    middle = scale // 2
    lr[y : y + height, x : x + width] = hr[middle::scale, middle::scale][
        y : y + height, x : x + width
    ]
    return lr
