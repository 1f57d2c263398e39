"""What all networks share."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from espan.errors import InputError
from espan.networks import SCALES


class Network(nn.Module, ABC):
    """What all networks share: (N, 3, H, W) in 0..1 -> (N, 3, scale*H, scale*W), not clamped.

    Args:
        config: the arguments of the network's own class, `scale`, `channels`, `blocks` and `rep`
            among them.

    Attributes:
        scale: how many times larger the output is: 2, 3 or 4.
        radius: input pixels to each side that an output pixel depends on.
        config: the arguments; `rep` is None in deploy form (plain convolutions only).

    Raises:
        InputError: an argument is out of its range.
    """

    scale: int
    radius: int
    config: dict[str, Any]

    def __init__(self, **config: Any):
        super().__init__()
        if config["scale"] not in SCALES:
            raise InputError(f"scale: expected 2, 3 or 4, got {config['scale']!r}")
        for name in ("channels", "blocks"):
            if type(config[name]) is not int or config[name] < 1:
                raise InputError(f"{name}: expected 1 or more, got {config[name]!r}")
        self.config = config
        self.scale = config["scale"]

    @property
    def folded(self) -> bool:
        """Whether the network is in deploy form, of plain convolutions only."""
        return self.config["rep"] is None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The enlarged images, by the network's own layers.

        Args:
            x: images (N, 3, H, W), RGB in 0..1, of any H and W.

        Returns:
            (N, 3, scale * H, scale * W), not clamped.
        """
