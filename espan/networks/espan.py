"""ESPAN, the main network of this package."""

import torch
import torch.nn.functional as F
from torch import Tensor

from espan.errors import InputError
from espan.networks.layers import SPAB, Conv2d, conv
from espan.networks.lists import LayerList
from espan.networks.network import Network


class ESPAN(Network):
    """Expanded SPAN (Wang et al., CVPRW 2025): 9x9 head, SPABs, one of them shortened, 1x1 tail.

    The defaults make the paper's x4 network, in deploy form.

    Args:
        channels: channels of the feature maps, 1 or more.
        blocks: number of SPABs with 3 convolutions, 1 or more.
        last_convs: convolutions of an additional last SPAB, 1 to 3; 0 for no such block.
        scale: 2, 3 or 4.
        rep: the branches for training, a preset or schema of `espan.networks.reparam`; None for
            the deploy form.

    Raises:
        InputError: an argument is out of range, or `rep` is not a schema.
    """

    def __init__(
        self,
        channels: int = 32,
        blocks: int = 5,
        last_convs: int = 2,
        scale: int = 4,
        rep: str | None = None,
    ):
        super().__init__(
            channels=channels, blocks=blocks, last_convs=last_convs, scale=scale, rep=rep
        )
        if last_convs not in (0, 1, 2, 3):
            raise InputError(f"last_convs: expected 0 to 3, got {last_convs!r}")
        convs = [3] * blocks + [last_convs] * (last_convs > 0)
        self.radius = 4 + sum(convs) + 2
        self.conv_1 = conv(3, channels, 9, rep)
        self.blocks: LayerList[SPAB] = LayerList(SPAB(channels, n, rep) for n in convs)
        self.conv_2 = conv(channels, channels, 3, rep)
        self.conv_cat = Conv2d(4 * channels, channels, 1)
        self.upsampler = conv(channels, 3 * scale**2, 3, rep)

    def forward(self, x: Tensor) -> Tensor:
        feature = self.conv_1(x)
        first = last = self.blocks[0](feature)
        for block in self.blocks[1:]:
            last = block(last)
        return self.tail(feature, first, last)

    def tail(self, feature: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Merges the outputs of the head, the first and the last block into the upscaled images.

        Args:
            feature: output of the head, (N, channels, H, W).
            first: output of the first block, same shape.
            last: output of the last block, same shape.

        Returns:
            Images (N, 3, scale * H, scale * W), not clamped.
        """
        cat = self.conv_cat(torch.cat([feature, self.conv_2(last), first, last], 1))
        return F.pixel_shuffle(self.upsampler(cat), self.scale)
