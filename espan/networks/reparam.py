"""GRep: a convolution that trains as a sum of linear branches and runs as one kernel.

A schema names the branches of a k x k convolution: `4*1-k@2, 1, k` is four chains 1x1 -> kxk, each
with 2 middle channels per input channel, plus one 1x1 and one kxk. docs/method.md derives why such
a sum is a single convolution.
"""

import re
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espan.errors import InputError
from espan.networks.lists import LayerList

# `span` is the block of SPAN, `ecb` the block of ECBSR (Zhang et al., 2021); `espan` is our reading
# of the paper's GRep, see docs/method.md.
PRESETS = {
    "plain": "k",
    "span": "1, 1-k-1",
    "espan": "4*1-k, 1, k",
    "ecb": "k, 1-k, 1-sobel_x, 1-sobel_y, 1-laplacian",
}
RATIO = 2
# Far above any useful schema: constructing a larger network would take minutes.
MAX_BRANCHES = 64

FILTERS = {
    "sobel_x": ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
    "sobel_y": ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
    "laplacian": ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
}
CHAINS = ("k", "1", "id", "1-k", "k-1", "1-k-1", *(f"1-{name}" for name in FILTERS))
_BRANCH = re.compile(r"(?:([1-9]\d?)\*)?([\w-]+)(?:@([1-9]\d?))?")


def read_schema(text: str) -> list[tuple[int, tuple[str, ...], int]]:
    """Parses a preset name or a schema into branches: (count, links of the chain, ratio) each.

    Raises InputError for a branch that is not in CHAINS, and for more than MAX_BRANCHES.
    """
    branches = []
    for part in PRESETS.get(text, text).split(","):
        match = _BRANCH.fullmatch(part.strip())
        if not match or match[2] not in CHAINS:
            raise InputError(
                f"rep: expected {', '.join(PRESETS)}, or branches such as '4*1-k@2, 1, k' "
                f"of {', '.join(CHAINS)}; got {part.strip()!r} in {text!r}"
            )
        branches.append((int(match[1] or 1), tuple(match[2].split("-")), int(match[3] or RATIO)))
    if (count := sum(each for each, *_ in branches)) > MAX_BRANCHES:
        raise InputError(f"rep: expected at most {MAX_BRANCHES} branches, got {count}")
    return branches


def compose(first: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Composes two convolutions, `first` then `then`, into one (weight, bias); one must be 1x1.

    Also exact at the image border if the image is padded before `first`: then `first` writes its
    bias into the padding, so every tap of `then` sees it.
    """
    (w1, b1), (w2, b2) = first, then
    if w1.shape[-1] == 1:
        weight = torch.einsum("omhw,mi->oihw", w2, w1[:, :, 0, 0])
    elif w2.shape[-1] == 1:
        weight = torch.einsum("om,mihw->oihw", w2[:, :, 0, 0], w1)
    else:
        raise ValueError(f"compose: one kernel must be 1x1, got {w1.shape} and {w2.shape}")
    return weight, b2 + w2.sum((2, 3)) @ b1


class FixedFilter(nn.Module):
    """A fixed 3x3 filter for all channels, times a factor per channel, plus a bias.

    weight (channels, 1, 1, 1): the factors.
    """

    kernel_size = (3, 3)
    filter: Tensor

    def __init__(self, name: str, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("filter", torch.tensor(FILTERS[name]).float(), persistent=False)

    def kernel(self) -> Tensor:
        return torch.diag_embed(self.weight[:, 0, 0, 0])[:, :, None, None] * self.filter

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.bias)


class Identity(nn.Module):
    """Identity as a 1x1 convolution without parameters."""

    kernel_size = (1, 1)
    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("weight", torch.eye(channels)[:, :, None, None], persistent=False)
        self.register_buffer("bias", torch.zeros(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x


Link: TypeAlias = nn.Conv2d | FixedFilter | Identity


class RepConv(nn.Module):
    """A k x k convolution with zero padding k // 2 that trains as a sum of linear branches.

    rep: a schema or a name in PRESETS. `id` branches are skipped if input and output channels
    differ. Since all branches are linear, they merge into one kernel, a differentiable function of
    their weights: `forward` merges the weights, not activations, and runs one convolution.
    `branch_by_branch` is the reference definition.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, rep: str = "espan"):
        super().__init__()
        self.kernel, self.channels = kernel, (in_channels, out_channels)
        self.branches: LayerList[nn.Sequential] = LayerList()
        for count, links, ratio in read_schema(rep):
            if links == ("id",) and in_channels != out_channels:
                continue
            # n equal chains of two convolutions equal one chain n times as wide: both sum over the
            # middle channels.
            wide = links in (("1", "k"), ("k", "1"))
            for _ in range(1 if wide else count):
                self.branches.append(self._chain(links, ratio * count if wide else ratio))
        if not self.branches:
            raise InputError(f"rep: {rep!r} has no branch for {in_channels} -> {out_channels}")

    def _chain(self, links: tuple[str, ...], ratio: int) -> nn.Sequential:
        inner, outer = self.channels
        widths = {
            1: [inner, outer],
            2: [inner, ratio * (inner if links[0] == "1" else outer), outer],
            3: [inner, ratio * inner, ratio * outer, outer],
        }[len(links)]
        if links[-1] in FILTERS:
            widths[1] = outer
        chain = nn.Sequential()
        for link, channels_in, channels_out in zip(links, widths, widths[1:], strict=False):
            if link in FILTERS:
                chain.append(FixedFilter(link, outer))
            elif link == "id":
                chain.append(Identity(outer))
            else:
                size = self.kernel if link == "k" else 1
                chain.append(nn.Conv2d(channels_in, channels_out, size))
        return chain

    def merged(self) -> tuple[Tensor, Tensor]:
        """Returns (weight, bias) of the convolution that equals the sum of the branches."""
        merged = [self._merged(chain) for chain in self.branches]
        zero = torch.zeros(())
        return sum((w for w, _ in merged), zero), sum((b for _, b in merged), zero)

    def _merged(self, chain: nn.Sequential) -> tuple[Tensor, Tensor]:
        """Returns (weight, bias) of the convolution that equals a branch."""
        first, *others = links_of(chain)
        w, b = _kernel(first)
        for link in others:
            w, b = compose((w, b), _kernel(link))
        border = (self.kernel - w.shape[-1]) // 2
        return F.pad(w, [border] * 4) if border else w, b

    @torch.no_grad()
    def set_kernel(self, weight: Tensor, bias: Tensor) -> None:
        """Sets `merged()` to this kernel, by adding the difference to the plain k x k branch."""
        single = [chain[0] for chain in self.branches if len(chain) == 1]
        convs = [link for link in single if isinstance(link, nn.Conv2d)]
        plain = [conv for conv in convs if conv.kernel_size[0] == self.kernel]
        if not plain:
            raise InputError("rep: expected a 'k' branch, which takes over merged weights")
        for part, wanted, now in zip(_kernel(plain[0]), (weight, bias), self.merged(), strict=True):
            part += wanted - now

    def forward(self, x: Tensor) -> Tensor:
        # Without autocast, which would lower the precision of the merge.
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.merged()
        return F.conv2d(x, weight, bias, padding=self.kernel // 2)

    def branch_by_branch(self, x: Tensor) -> Tensor:
        """Reference for `forward`: pads the input, then runs each branch without padding."""
        outputs = []
        for chain in self.branches:
            border = sum(link.kernel_size[0] // 2 for link in links_of(chain))
            outputs.append(chain(F.pad(x, [border] * 4)))
        return sum(outputs, torch.zeros(()))


def links_of(chain: nn.Sequential) -> list[Link]:
    """The links of a branch in order."""
    return [link for link in chain if isinstance(link, Link)]


def _kernel(link: Link) -> tuple[Tensor, Tensor]:
    """Returns (weight, bias) of a link as a convolution."""
    weight = link.kernel() if isinstance(link, FixedFilter) else link.weight
    assert link.bias is not None  # all links have one
    return weight, link.bias
