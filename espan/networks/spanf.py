"""SPAN-F, a variant of SPAN without a head."""

import torch
import torch.nn.functional as F
from torch import Tensor

from espan.networks.layers import SPAB, Conv, Conv2d, conv
from espan.networks.lists import LayerList
from espan.networks.network import Network


class SPANF(Network):
    """SPAN-F (NTIRE 2025): no head; the tail reads the nearest-upsampled image.

    Args:
        channels: channels of the feature maps, 1 or more.
        blocks: number of blocks with 3 convolutions, 1 or more. The first block maps 3 channels to
            `channels` and has no gate, the others are SPABs.
        scale: 2, 3 or 4.
        rep: the branches for training, a preset or schema of `espan.networks.reparam`; None for
            the deploy form.

    Raises:
        InputError: an argument is out of range, or `rep` is not a schema.
    """

    def __init__(self, channels: int = 32, blocks: int = 5, scale: int = 4, rep: str | None = None):
        super().__init__(channels=channels, blocks=blocks, scale=scale, rep=rep)
        self.radius = 3 * blocks + 1
        self.block_1: LayerList[Conv] = LayerList(
            conv(c, channels, 3, rep) for c in (3, channels, channels)
        )
        self.blocks: LayerList[SPAB] = LayerList(SPAB(channels, 3, rep) for _ in range(blocks - 1))
        self.conv_cat = Conv2d(3 * scale**2 + 2 * channels, channels, 1)
        self.conv_2 = conv(channels, 3 * scale**2, 3, rep)

    def forward(self, x: Tensor) -> Tensor:
        c1, c2, c3 = self.block_1
        first = last = c3(F.silu(c2(F.silu(c1(x)))))
        for block in self.blocks:
            last = block(last)
        # Repeating each colour scale^2 times before a pixel shuffle is nearest upsampling.
        near = x.repeat_interleave(self.scale**2, 1)
        cat = self.conv_cat(torch.cat([near, last, first], 1))
        return F.pixel_shuffle(self.conv_2(cat), self.scale)
