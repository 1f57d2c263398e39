"""Plans: a folded network as a run of fused ops with its weights prepared once."""

import torch
from torch import Tensor, nn

from espan.model import ESPAN, SPAN, SPANF, Network
from espan_kernels import conv3x3, conv9x9_head, pack_weight, spab, tail
from espan_kernels.merge import add_to_centre, merge_tail


class Plan:
    """`Plan(net)(x)` equals `net(x)`, but runs through the ops of `espan_kernels`.

    net: a folded ESPAN, SPAN or SPANF; its weights are copied, a later change of it is not seen.
    impl: what every op is asked for; None lets each take its fastest, "triton" and "eager" that
    one and no other. x (N, 3, H, W), device and dtype of the network -> (N, 3, scale*H, scale*W),
    in channels_last memory; clamp and uint8 as in `espan_kernels.tail`. Keeps no gradient.
    """

    def __init__(self, net: Network, impl: str | None = None):
        if type(net) not in PLANS:
            names = ", ".join(cls.__name__ for cls in PLANS)
            raise ValueError(f"Plan: net: expected one of {names}, got {type(net).__name__}")
        if not net.folded:
            raise ValueError("Plan: net: expected a folded network, got its training form")
        self.scale, self.radius = net.scale, net.radius
        with torch.no_grad():
            self.run = PLANS[type(net)](net, impl)

    @torch.no_grad()
    def __call__(self, x: Tensor, *, clamp: bool = False, uint8: bool = False) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return self.run(x, clamp=clamp, uint8=uint8)


def _packed(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    return pack_weight(conv.weight.detach()), conv.bias.detach().clone()


def _packed_blocks(blocks) -> list[tuple]:
    """(weights, biases) of every block."""
    return [tuple(zip(*map(_packed, block.convs), strict=True)) for block in blocks]


def _block(x: Tensor, weights, biases, impl: str | None) -> Tensor:
    """An attention block of any number of convs."""
    if len(weights) in (2, 3):
        return spab(x, weights, biases, impl=impl)
    h = x
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = conv3x3(h, weight, bias, act="silu", impl=impl)
    return conv3x3(h, weights[-1], biases[-1], gate=x, impl=impl)


def _wide(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    return conv.weight.double(), conv.bias.double()


def _packed_tail(weights: list[Tensor], bias: Tensor, up: nn.Conv2d) -> tuple:
    """Arguments of `tail` after its inputs, rounded once from float64."""
    weights = [pack_weight(weight.to(up.weight.dtype)) for weight in weights]
    return weights, bias.to(up.weight.dtype), *_packed(up)


def _espan(net: ESPAN, impl: str | None):
    head, blocks = _packed(net.conv_1), _packed_blocks(net.blocks)
    slices = [net.config["channels"]] * 4
    (feature_w, merged, first_w, last_w), bias = merge_tail(
        *_wide(net.conv_2), *_wide(net.conv_cat), slices, 1
    )
    end = _packed_tail([add_to_centre(merged, last_w), feature_w, first_w], bias, net.upsampler)

    def run(x: Tensor, **out) -> Tensor:
        feature = conv9x9_head(x, *head, impl=impl)
        first = last = _block(feature, *blocks[0], impl)
        for block in blocks[1:]:
            last = _block(last, *block, impl)
        return tail([last, feature, first], *end, scale=net.scale, impl=impl, **out)

    return run


def _span(net: SPAN, impl: str | None):
    head, blocks = _packed(net.conv_1), _packed_blocks(net.blocks)
    slices = [net.config["channels"]] * 4
    (feature_w, merged, first_w, inner_w), bias = merge_tail(
        *_wide(net.conv_2), *_wide(net.conv_cat), slices, 1
    )
    end = _packed_tail([merged, feature_w, first_w, inner_w], bias, net.upsampler)
    mean, img_range = net.mean.clone(), net.img_range

    def run(x: Tensor, **out) -> Tensor:
        feature = conv3x3((x - mean) * img_range, *head, impl=impl)
        first, last = None, feature
        for block in blocks[:-1]:
            last = spab(last, *block, impl=impl)
            first = last if first is None else first
        # The last block by its convs: the tail wants what follows the first one.
        (w1, w2, w3), (b1, b2, b3) = blocks[-1]
        inner = conv3x3(last, w1, b1, act="silu", impl=impl)
        middle = conv3x3(inner, w2, b2, act="silu", impl=impl)
        last = conv3x3(middle, w3, b3, gate=last, impl=impl)
        first = last if first is None else first
        return tail([last, feature, first, inner], *end, scale=net.scale, impl=impl, **out)

    return run


def _spanf(net: SPANF, impl: str | None):
    start, blocks = [_packed(conv) for conv in net.block_1], _packed_blocks(net.blocks)
    weight, bias = _wide(net.conv_cat)
    repeats, channels = net.scale**2, net.config["channels"]
    near_w, last_w, first_w = weight.split([3 * repeats, channels, channels], dim=1)
    # Each colour enters repeated: one input with the sum of its weights is the same.
    picture_w = near_w.unflatten(1, (3, repeats)).sum(2)
    end = _packed_tail([last_w, picture_w, first_w], bias, net.conv_2)

    def run(x: Tensor, **out) -> Tensor:
        c1, c2, c3 = start
        hidden = conv3x3(x, *c1, act="silu", impl=impl)
        hidden = conv3x3(hidden, *c2, act="silu", impl=impl)
        first = last = conv3x3(hidden, *c3, impl=impl)
        for block in blocks:
            last = spab(last, *block, impl=impl)
        return tail([last, x, first], *end, scale=net.scale, impl=impl, **out)

    return run


PLANS = {ESPAN: _espan, SPAN: _span, SPANF: _spanf}
