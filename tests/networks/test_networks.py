"""Networks: parameter counts, receptive fields, training form against its definition, folding."""

import copy

import pytest
import torch
from torch import nn

from espan import ESPAN, SPAN, SPANF, fold
from espan.networks.deploy import copy_to
from espan.networks.reparam import PRESETS, RepConv, compose
from tests.support.makers import random_net

KINDS = {"espan": ESPAN, "span": SPAN, "spanf": SPANF}
SMALL = {
    "espan": {"channels": 4, "blocks": 1, "last_convs": 2},
    "span": {"channels": 4, "blocks": 2, "img_range": 1.0},
    "spanf": {"channels": 4, "blocks": 2},
}
SIZES = [(1, 1), (1, 9), (7, 1), (11, 14)]


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def image(*size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, *size, dtype=torch.float64, generator=generator)


def small(kind: str, rep: str | None, scale: int = 4) -> nn.Module:
    return random_net(KINDS[kind], scale=scale, rep=rep, **SMALL[kind]).double()


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        pytest.param(ESPAN, 192_272, id="espan"),
        pytest.param(lambda: ESPAN(last_convs=0), 173_776, id="espan-student"),
        pytest.param(lambda: ESPAN(last_convs=3), 201_520, id="espan-uncut"),
        pytest.param(lambda: SPAN(28), 150_688, id="span28"),
        pytest.param(lambda: SPAN(48), 426_288, id="span48"),
        pytest.param(lambda: SPAN(48, scale=2), 410_700, id="span48-x2"),
        pytest.param(lambda: SPAN(52), 498_208, id="span52"),
        pytest.param(lambda: SPAN(52, scale=2), 481_324, id="span52-x2"),
        # The published 148,288 include the fixed 48x1x3x3 kernel of nearest upsampling.
        pytest.param(SPANF, 148_288 - 432, id="spanf"),
    ],
)
def test_parameters(net, parameters):
    assert count(net()) == parameters


@pytest.mark.parametrize(
    ("net", "radius"),
    [
        pytest.param(ESPAN, 23, id="espan"),
        pytest.param(lambda: ESPAN(last_convs=0), 21, id="espan-student"),
        pytest.param(lambda: SPAN(28), 21, id="span"),
        pytest.param(SPANF, 16, id="spanf"),
    ],
)
def test_published_radius(net, radius):
    assert net().radius == radius


@pytest.mark.parametrize(
    ("make", "config"),
    [
        pytest.param(ESPAN, {"blocks": 5, "last_convs": 2}, id="espan"),
        pytest.param(ESPAN, {"blocks": 1, "last_convs": 0}, id="espan-small"),
        pytest.param(ESPAN, {"blocks": 2, "last_convs": 2, "scale": 2}, id="espan-x2"),
        pytest.param(ESPAN, {"blocks": 1, "last_convs": 1}, id="espan-one-last-conv"),
        pytest.param(SPAN, {"blocks": 6, "img_range": 1.0}, id="span"),
        pytest.param(SPAN, {"blocks": 1, "img_range": 1.0}, id="span-one-block"),
        pytest.param(SPANF, {"blocks": 5, "scale": 3}, id="spanf"),
    ],
)
@torch.no_grad()
def test_radius_equals_the_measured_receptive_field(make, config):
    net = random_net(make, **config).double()
    middle = net.radius + 3
    x = image(2 * middle + 1, 2 * middle + 1)
    changed = x.clone()
    changed[..., middle, middle] += 10
    rows, columns = (net(x) != net(changed))[0].any(0).nonzero().T // net.scale
    reach = torch.stack([(rows - middle).abs(), (columns - middle).abs()]).max(1).values
    assert reach.tolist() == [net.radius, net.radius]


@pytest.mark.parametrize("rep", [None, "espan"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_output_is_scale_times_larger(kind, scale, rep):
    assert small(kind, rep, scale)(image(5, 7)).shape == (1, 3, 5 * scale, 7 * scale)


@pytest.mark.parametrize("scale", [1, 5, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_other_scales_are_refused(kind, scale):
    with pytest.raises(ValueError, match="scale: expected 2, 3 or 4"):
        KINDS[kind](scale=scale)


def test_unknown_branches_are_refused():
    with pytest.raises(ValueError, match=r"rep: expected plain, span, .* got 'expan'"):
        ESPAN(rep="expan")


@pytest.mark.parametrize("kernel", [3, 9])
@pytest.mark.parametrize("rep", PRESETS)
def test_merged_kernel_equals_padding_first_then_every_branch(rep, kernel):
    torch.manual_seed(0)
    layer = RepConv(3, 5, kernel, rep).double()
    for part in layer.parameters():
        nn.init.normal_(part)
    x, edge = image(6, 4), kernel // 2
    padded = nn.functional.pad(x, [edge] * 4)
    expected = 0
    for chain in layer.branches:
        wide = next((link.kernel_size[0] // 2 for link in chain if link.kernel_size[0] > 1), 0)
        expected = expected + chain(
            padded[..., edge - wide : 6 + edge + wide, :][..., edge - wide : 4 + edge + wide]
        )
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rep", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_train_form_equals_branch_by_branch(monkeypatch, kind, rep):
    merged, parts = small(kind, rep), small(kind, rep)
    x = image(9, 8).requires_grad_()
    direction = torch.linspace(-1, 1, 3 * 36 * 32, dtype=torch.float64).view(1, 3, 36, 32)
    y = merged(x)
    (y * direction).sum().backward()
    gradient, x.grad = x.grad, None

    monkeypatch.setattr(RepConv, "forward", RepConv.branch_by_branch)
    expected = parts(x)
    (expected * direction).sum().backward()
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(gradient, x.grad, rtol=1e-10, atol=1e-10)
    for (name, one), other in zip(merged.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("rep", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_fold_is_exact_borders_included(kind, rep, scale, size):
    net = small(kind, rep, scale)
    x = image(*size)
    assert (fold(net)(x) - net(x)).abs().max() <= 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_fold_leaves_plain_convolutions_only(kind):
    folded = fold(small(kind, "espan"))
    assert folded.folded
    assert not any(isinstance(m, RepConv) for m in folded.modules())
    assert count(folded) == count(KINDS[kind](**SMALL[kind]))


def test_fold_leaves_its_argument_alone():
    net = small("espan", "espan").train()
    before = copy.deepcopy(net.state_dict())
    fold(net)
    assert net.training and not net.folded
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_fold_of_a_folded_network_is_a_copy():
    net = small("espan", None)
    again = fold(net)
    x = image(5, 5)
    assert torch.equal(again(x), net(x))
    with torch.no_grad():
        again.conv_1.weight.zero_()
    assert net.conv_1.weight.abs().max() > 0


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fold_keeps_dtype_and_mode(dtype, training):
    folded = fold(small("espan", "span").to(dtype).train(training))
    assert next(folded.parameters()).dtype == dtype
    assert folded.training == training


def test_compose_needs_a_1x1():
    kernel, bias = torch.zeros(2, 2, 3, 3), torch.zeros(2)
    with pytest.raises(ValueError, match="one kernel must be 1x1"):
        compose((kernel, bias), (kernel, bias))


@torch.no_grad()
def test_a_batch_is_its_images_one_by_one():
    net = small("espan", None)
    x = torch.cat([image(6, 9, seed=seed) for seed in range(3)])
    each = torch.cat([net(one[None]) for one in x])
    torch.testing.assert_close(net(x), each, rtol=0, atol=1e-12)


@pytest.mark.gpu
@torch.no_grad()
def test_gpu_agrees_with_cpu():
    net = random_net(ESPAN, channels=32, blocks=5, last_convs=2)
    x = image(40, 50).float()
    y = net(x)
    on_gpu = copy_to(net, torch.device("cuda"), torch.float32)
    torch.testing.assert_close(on_gpu(x.cuda()).cpu(), y, rtol=0, atol=1e-4)
