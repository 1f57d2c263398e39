"""The content of a page or a sheet: results of one size, with names and scores."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Pane:
    """A result or the original, (H, W, 3) uint8, and its scores by `benchmark.COLUMNS`."""

    name: str
    pixels: np.ndarray
    scores: dict[str, float] = field(default_factory=dict)


@dataclass
class Comparison:
    """Panes of one size: bicubic, then the networks, then the original if there is one."""

    name: str
    scale: int
    panes: list[Pane]
