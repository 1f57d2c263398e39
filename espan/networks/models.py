"""The networks: ESPAN and its relatives SPAN and SPAN-F. It knows no files and no pictures."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espan.errors import InputError
from espan.networks import SCALES
from espan.networks.layers import SPAB, Conv, Conv2d, conv
from espan.networks.lists import LayerList

# Mean of DIV2K in 0..1, which SPAN subtracts.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class Network(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged images, by the network's own layers.

        Args:
            x: images (N, 3, H, W), RGB in 0..1, of any H and W.

        Returns:
            (N, 3, scale * H, scale * W), not clamped.
        """
        raise NotImplementedError


class ESPAN(Network):
    """Expanded SPAN (Wang et al., CVPRW 2025): 9x9 head, SPABs, one of them shortened, 1x1 tail.

    The defaults make the paper's x4 network, in deploy form.

    Args:
        channels: of the feature maps, 1 or more.
        blocks: SPABs of 3 convolutions, 1 or more.
        last_convs: convolutions of one more SPAB after these, 0 (no such block) to 3.
        scale: 2, 3 or 4.
        rep: the branches to train with, a preset or schema of `espan.networks.reparam`; None is
            the deploy form.

    Raises:
        InputError: an argument is out of its range, or `rep` is no schema.
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
        """The enlarged images from the outputs of the head, the first block and the last one.

        Args:
            feature: of the head, (N, channels, H, W).
            first: of the first block, the same shape.
            last: of the last block, the same shape.

        Returns:
            (N, 3, scale * H, scale * W), not clamped.
        """
        cat = self.conv_cat(torch.cat([feature, self.conv_2(last), first, last], 1))
        return F.pixel_shuffle(self.upsampler(cat), self.scale)


class SPAN(Network):
    """SPAN (Wan et al., CVPRW 2024): 3x3 head, 6 SPABs, 1x1 tail.

    The tail concatenates SiLU of the last block's first convolution: an in-place SiLU of the
    original code makes it so, and the published weights rely on it.

    Args:
        channels: of the feature maps, 1 or more.
        blocks: SPABs of 3 convolutions, 1 or more.
        scale: 2, 3 or 4.
        mean: of red, green and blue in 0..1, which the head subtracts.
        img_range: what the head then multiplies by; 255 in the paper's networks.
        rep: the branches to train with, a preset or schema of `espan.networks.reparam`; None is
            the deploy form.

    Raises:
        InputError: an argument is out of its range, or `rep` is no schema.
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


class SPANF(Network):
    """SPAN-F (NTIRE 2025): no head; the nearest-upsampled image itself enters the tail.

    Args:
        channels: of the feature maps, 1 or more.
        blocks: of 3 convolutions, 1 or more. The first one maps 3 channels to `channels` and has
            no gate, the others are SPABs.
        scale: 2, 3 or 4.
        rep: the branches to train with, a preset or schema of `espan.networks.reparam`; None is
            the deploy form.

    Raises:
        InputError: an argument is out of its range, or `rep` is no schema.
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
        # Each colour repeated scale^2 times is, before the pixel shuffle, nearest upsampling.
        near = x.repeat_interleave(self.scale**2, 1)
        cat = self.conv_cat(torch.cat([near, last, first], 1))
        return F.pixel_shuffle(self.conv_2(cat), self.scale)


ARCHITECTURES = {cls.__name__: cls for cls in (ESPAN, SPAN, SPANF)}
