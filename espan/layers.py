"""The two layers of the SPAN family: the re-parameterised convolution and the attention block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espan.errors import InputError
from espan_kernels import span_gate

# A branch is a chain of kernel sizes, "k" standing for the layer's own. Sources: `span` is the
# ancestor's block (skip 1x1 beside 1x1 -> kxk -> 1x1); `espan` is our reading of the paper's
# GRep, see docs/method.md.
BRANCHES = {
    "plain": (("k",),),
    "span": ((1,), (1, "k", 1)),
    "espan": ((1, "k"), (1, "k"), (1, "k"), (1, "k"), (1,), ("k",)),
}


def compose(first: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`conv(then) after conv(first)` as one (weight, bias); one of the two must be 1x1.

    Exact also at the image border, provided the picture is padded before `first`: then `first`
    writes its bias into the padding too, so every tap of `then` sees it.
    """
    (w1, b1), (w2, b2) = first, then
    if w1.shape[-1] == 1:
        weight = torch.einsum("omhw,mi->oihw", w2, w1[:, :, 0, 0])
    elif w2.shape[-1] == 1:
        weight = torch.einsum("om,mihw->oihw", w2[:, :, 0, 0], w1)
    else:
        raise ValueError(f"compose: one kernel must be 1x1, got {w1.shape} and {w2.shape}")
    return weight, b2 + w2.sum((2, 3)) @ b1


class RepConv(nn.Module):
    """A k x k convolution, zero padding k // 2, that trains as a sum of linear branches.

    Every branch is linear, so the branches merge into one kernel that is itself a differentiable
    function of their weights: `forward` merges weights, never activations, and runs one
    convolution. `branch_by_branch` is the definition it must equal.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, rep: str = "espan", ratio: int = 2
    ):
        super().__init__()
        if rep not in BRANCHES:
            raise InputError(f"rep: expected one of {', '.join(BRANCHES)}, got {rep!r}")
        self.kernel = kernel
        middle = ratio * in_channels
        self.branches = nn.ModuleList()
        for chain in BRANCHES[rep]:
            widths = [in_channels] + [middle] * (len(chain) - 1) + [out_channels]
            if len(chain) == 3:
                widths[2] = ratio * out_channels
            sizes = [kernel if size == "k" else size for size in chain]
            self.branches.append(nn.Sequential(*map(nn.Conv2d, widths[:-1], widths[1:], sizes)))

    def merged(self) -> tuple[Tensor, Tensor]:
        """(weight, bias) of the one convolution that equals the sum of the branches."""
        weight = bias = 0
        for chain in self.branches:
            w, b = chain[0].weight, chain[0].bias
            for conv in chain[1:]:
                w, b = compose((w, b), (conv.weight, conv.bias))
            border = (self.kernel - w.shape[-1]) // 2
            weight, bias = weight + F.pad(w, [border] * 4), bias + b
        return weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.merged(), padding=self.kernel // 2)

    def branch_by_branch(self, x: Tensor) -> Tensor:
        """The same, one branch after another: pad first, then run every chain unpadded."""
        out = 0
        for chain in self.branches:
            border = sum(layer.kernel_size[0] // 2 for layer in chain)
            out = out + chain(F.pad(x, [border] * 4))
        return out


def conv(in_channels: int, out_channels: int, kernel: int, rep: str | None) -> nn.Module:
    """A convolution that keeps H x W: re-parameterised for training, plain (`rep=None`) else."""
    if rep is None:
        return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return RepConv(in_channels, out_channels, kernel, rep)


class SPAB(nn.Module):
    """Swift parameter-free attention block: 2 or 3 convs with SiLU between, then the gate.

    x (N, channels, H, W) -> the same shape. No residual but the one inside the gate.
    """

    def __init__(self, channels: int, convs: int = 3, rep: str | None = None):
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels, 3, rep) for _ in range(convs))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for layer in self.convs[:-1]:
            h = F.silu(layer(h))
        return span_gate(x, self.convs[-1](h))

    def with_first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(output, SiLU of the first of its three convs): SPAN's tail concatenates the second."""
        c1, c2, c3 = self.convs
        first = F.silu(c1(x))
        return span_gate(x, c3(F.silu(c2(first)))), first
