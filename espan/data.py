"""Training pictures: a folder of HR files, held in memory with their LR versions, cut at random."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from espan import files
from espan.errors import InputError
from espan.resize import downscale, modcrop


class Patches:
    """Aligned LR and HR patches at random places, flipped and turned at random.

    Step number and seed alone decide what `batch` returns, so that a resumed run sees the same
    patches as one that was never stopped. LR = MATLAB-bicubic of the whole picture.
    """

    def __init__(self, folder: str | Path, scale: int, patch: int, batch: int, seed: int):
        self.scale, self.patch, self.size, self.seed = scale, patch, batch, seed
        self.hr, self.lr = [], []
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix.lower() not in files.READ_SUFFIXES:
                continue
            hr = modcrop(files.read_rgb(path), scale)
            if min(hr.shape[:2]) >= scale * patch:
                self.hr.append(hr)
                self.lr.append(downscale(hr, scale))
        if not self.hr:
            raise InputError(f"{folder}: no picture of at least {scale * patch} pixels a side")

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(LR (N, 3, patch, patch), HR (N, 3, scale * patch, scale * patch)), float 0..1."""
        random = np.random.default_rng((self.seed, step))
        lr, hr = zip(*(self._patch(random) for _ in range(self.size)), strict=True)
        return _to_tensor(lr), _to_tensor(hr)

    def _patch(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        chosen = random.integers(len(self.lr))
        lr, hr = self.lr[chosen], self.hr[chosen]
        s, p = self.scale, self.patch
        y, x = (random.integers(side - p + 1) for side in lr.shape[:2])
        lr = lr[y : y + p, x : x + p]
        hr = hr[s * y : s * (y + p), s * x : s * (x + p)]
        if random.random() < 0.5:
            lr, hr = lr[:, ::-1], hr[:, ::-1]
        turns = random.integers(4)
        return np.rot90(lr, turns), np.rot90(hr, turns)


def _to_tensor(patches: tuple[np.ndarray, ...]) -> Tensor:
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255
