"""The base class of all networks."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from espan.errors import InputError
from espan.networks import SCALES


class Network(nn.Module, ABC):
    """Base of all networks: (N, 3, H, W) in 0..1 -> (N, 3, scale*H, scale*W), not clamped.

    Args:
        config: the arguments of the subclass, including `scale`, `channels`, `blocks` and `rep`.

    Attributes:
        scale: the upscaling factor: 2, 3 or 4.
        radius: radius of the receptive field in input pixels.
        config: the arguments; `rep` is None in deploy form (plain convolutions only).

    Raises:
        InputError: an argument is out of range.
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
        """Whether the network is in deploy form (plain convolutions only)."""
        return self.config["rep"] is None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Upscales images.

        Args:
            x: RGB images (N, 3, H, W) in 0..1, any H and W.

        Returns:
            Images (N, 3, scale * H, scale * W), not clamped.
        """
