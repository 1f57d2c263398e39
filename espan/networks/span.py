"""SPAN, the predecessor of ESPAN."""

import torch
import torch.nn.functional as F
from torch import Tensor

from espan.errors import InputError
from espan.networks.layers import SPAB, Conv2d, conv
from espan.networks.lists import LayerList
from espan.networks.network import Network

# Mean colour of DIV2K in 0..1, which SPAN subtracts.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class SPAN(Network):
    """SPAN (Wan et al., CVPRW 2024): 3x3 head, 6 SPABs, 1x1 tail.

    The tail concatenates SiLU of the first convolution of the last block: the original code does so
    by an in-place SiLU, and the published weights rely on it.

    Args:
        channels: channels of the feature maps, 1 or more.
        blocks: number of SPABs with 3 convolutions, 1 or more.
        scale: 2, 3 or 4.
        mean: mean of red, green and blue in 0..1, subtracted before the head.
        img_range: factor applied after the subtraction; 255 in the paper's networks.
        rep: the branches for training, a preset or schema of `espan.networks.reparam`; None for
            the deploy form.

    Raises:
        InputError: an argument is out of range, or `rep` is not a schema.
    """

    mean: Tensor

    def __init__(
        self,
        channels: int = 48,
        blocks: int = 6,
        scale: int = 4,
        mean: tuple[float, float, float] = DIV2K_MEAN,
        img_range: float = 255.0,
        rep: str | None = None,
    ):
        super().__init__(
            channels=channels,
            blocks=blocks,
            scale=scale,
            mean=tuple(mean),
            img_range=img_range,
            rep=rep,
        )
        if isinstance(img_range, bool) or not isinstance(img_range, int | float):
            raise InputError(f"img_range: expected a number, got {img_range!r}")
        self.radius = 1 + 3 * blocks + 2
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.img_range = img_range
        self.conv_1 = conv(3, channels, 3, rep)
        self.blocks: LayerList[SPAB] = LayerList(SPAB(channels, 3, rep) for _ in range(blocks))
        self.conv_2 = conv(channels, channels, 3, rep)
        self.conv_cat = Conv2d(4 * channels, channels, 1)
        self.upsampler = Conv2d(channels, 3 * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        feature = self.conv_1((x - self.mean) * self.img_range)
        first, inner = self.blocks[0].with_first(feature)
        last = first
        for block in self.blocks[1:]:
            last, inner = block.with_first(last)
        cat = self.conv_cat(torch.cat([feature, self.conv_2(last), first, inner], 1))
        return F.pixel_shuffle(self.upsampler(cat), self.scale)
