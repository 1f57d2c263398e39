"""Lowers networks to steps, with merged tails. All backends except eager start from the steps."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from espan.backends.program import IMAGE, RESULT, Block, Conv, Head, Normalise, Step, Tail
from espan.networks.espan import ESPAN
from espan.networks.layers import SPAB
from espan.networks.network import Network
from espan.networks.span import SPAN
from espan.networks.spanf import SPANF
from espan_kernels import pack_weight
from espan_kernels.merge import add_to_centre, merge_tail


def lower(net: Network) -> list[Step]:
    """The steps of a folded ESPAN, SPAN or SPANF, with copies of its weights; the last is a `Tail`.

    Raises ValueError for another network, or one in training form.
    """
    if type(net) not in LOWERINGS:
        names = ", ".join(cls.__name__ for cls in LOWERINGS)
        raise ValueError(f"net: expected one of {names}, got {type(net).__name__}")
    if not net.folded:
        raise ValueError("net: expected a folded network, got its training form")
    steps: list[Step] = LOWERINGS[type(net)](net)
    return steps


def _packed(conv: Any) -> tuple[Tensor, Tensor]:
    return pack_weight(conv.weight.detach()), conv.bias.detach().clone()


def _block(reads: str, makes: str, block: SPAB) -> Block:
    weights, biases = zip(*map(_packed, block.convs), strict=True)
    return Block(reads, makes, weights, biases)


def _blocks(reads: str, blocks: Iterable[SPAB], first: int = 1) -> list[Step]:
    """The steps of consecutive blocks; blocks too long for the op become single convolutions."""
    steps: list[Step] = []
    for i, block in enumerate(blocks, first):
        step = _block(reads, f"block {i}", block)
        steps += [step] if len(block.convs) in (2, 3) else step.convolutions()
        reads = step.makes
    return steps


def _in_float64(conv: Any) -> tuple[Tensor, Tensor]:
    return conv.weight.double(), conv.bias.double()


def _tail(reads: tuple[str, ...], weights: list[Tensor], bias: Tensor, up: Any, scale: int) -> Tail:
    """The tail, with its float64 weights and bias rounded to the dtype of `up`."""
    packed = tuple(pack_weight(weight.to(up.weight.dtype)) for weight in weights)
    return Tail(reads, RESULT, packed, bias.to(up.weight.dtype), *_packed(up), scale)


def _merged(net: ESPAN | SPAN) -> tuple[Tensor, list[Tensor], Tensor]:
    """Returns (3x3 weight of the last block, 1x1 weights of the other slices, bias) in float64."""
    slices = [net.config["channels"]] * 4
    (feature_w, merged, *others), bias = merge_tail(
        *_in_float64(net.conv_2), *_in_float64(net.conv_cat), slices, 1
    )
    return merged, [feature_w, *others], bias


def _espan(net: ESPAN) -> list[Step]:
    head = Head(IMAGE, "feature", *_packed(net.conv_1))
    steps = [head, *_blocks("feature", net.blocks)]
    merged, (feature_w, first_w, last_w), bias = _merged(net)
    weights = [add_to_centre(merged, last_w), feature_w, first_w]
    reads = steps[-1].makes, "feature", "block 1"
    return [*steps, _tail(reads, weights, bias, net.upsampler, net.scale)]


def _span(net: SPAN) -> list[Step]:
    head = Conv("normalised", "feature", *_packed(net.conv_1))
    normalise = Normalise(IMAGE, head.source, head.weight.dtype, net.mean.clone(), net.img_range)
    steps = [normalise, head, *_blocks("feature", net.blocks[:-1])]
    # The last block as convolutions: the tail reads the output of the first one.
    last = f"block {len(net.blocks)}"
    steps += _block(steps[-1].makes, last, net.blocks[-1]).convolutions()
    merged, (feature_w, first_w, inner_w), bias = _merged(net)
    reads = last, "feature", "block 1", f"{last} conv 1"
    weights = [merged, feature_w, first_w, inner_w]
    return [*steps, _tail(reads, weights, bias, net.upsampler, net.scale)]


def _spanf(net: SPANF) -> list[Step]:
    c1, c2, c3 = map(_packed, net.block_1)
    steps = [
        Normalise(IMAGE, "normalised", c1[0].dtype),
        Conv("normalised", "block 1 conv 1", *c1, act="silu"),
        Conv("block 1 conv 1", "block 1 conv 2", *c2, act="silu"),
        Conv("block 1 conv 2", "block 1", *c3),
        *_blocks("block 1", net.blocks, first=2),
    ]
    weight, bias = _in_float64(net.conv_cat)
    repeats, channels = net.scale**2, net.config["channels"]
    near_w, last_w, first_w = weight.split([3 * repeats, channels, channels], dim=1)
    # conv_cat reads each colour scale^2 times; reading it once with summed weights is equal.
    image_w = near_w.unflatten(1, (3, repeats)).sum(2)
    reads = steps[-1].makes, "normalised", "block 1"
    return [*steps, _tail(reads, [last_w, image_w, first_w], bias, net.conv_2, net.scale)]


LOWERINGS: dict[type[Network], Any] = {ESPAN: _espan, SPAN: _span, SPANF: _spanf}
