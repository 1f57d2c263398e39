"""SPAN as trained by its authors, including in-place SiLU; `espan.load` must reproduce it.

Written from docs and key names, without code of `espan`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (0.4488, 0.4371, 0.4040)


class Conv3XC(nn.Module):
    def __init__(self, c_in: int, c_out: int, gain: int = 2):
        super().__init__()
        self.sk = nn.Conv2d(c_in, c_out, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(c_in, c_in * gain, 1),
            nn.Conv2d(c_in * gain, c_out * gain, 3),
            nn.Conv2d(c_out * gain, c_out, 1),
        )
        # The original's cache of the merged kernel; stale here, so a loader must not read it.
        self.eval_conv = nn.Conv2d(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (1, 1, 1, 1))) + self.sk(x)


class Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.c1_r = Conv3XC(channels, channels)
        self.c2_r = Conv3XC(channels, channels)
        self.c3_r = Conv3XC(channels, channels)
        self.act1 = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out1 = self.c1_r(x)
        out2 = self.c2_r(self.act1(out1))
        out3 = self.c3_r(self.act1(out2))
        return (out3 + x) * (torch.sigmoid(out3) - 0.5), out1


class OriginalSPAN(nn.Module):
    def __init__(self, channels: int, scale: int):
        super().__init__()
        self.conv_1 = Conv3XC(3, channels)
        for number in range(1, 7):
            setattr(self, f"block_{number}", Block(channels))
        self.conv_cat = nn.Conv2d(4 * channels, channels, 1)
        self.conv_2 = Conv3XC(channels, channels)
        self.upsampler = nn.Sequential(
            nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        feature = self.conv_1((x - x.new_tensor(MEAN).view(1, 3, 1, 1)) * 255)
        first, _ = self.block_1(feature)
        last = first
        for number in range(2, 7):
            last, inner = getattr(self, f"block_{number}")(last)
        return self.upsampler(
            self.conv_cat(torch.cat([feature, self.conv_2(last), first, inner], 1))
        )
