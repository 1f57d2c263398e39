"""Schemas of re-parameterised convolutions: parsing, merging, and setting the merged kernel."""

import pytest
import torch
from torch import nn

from espan import ESPAN, InputError, fold
from espan.networks.reparam import PRESETS, RepConv, read_schema
from espan.training.config import TrainConfig
from espan.training.optim import optimizers_of

SCHEMAS = [*PRESETS, "3*1-k@4, k", "2*1-k-1@3, id, 1", "k-1, k", "2*k-1@1, id", "id", "12*1-k@1"]


def layer_of(rep: str, cin=4, cout=4, kernel=3) -> RepConv:
    torch.manual_seed(0)
    layer = RepConv(cin, cout, kernel, rep).double()
    for part in layer.parameters():
        nn.init.normal_(part)
    return layer


@pytest.mark.parametrize("kernel", [3, 5, 9])
@pytest.mark.parametrize("rep", SCHEMAS)
def test_merged_equals_branch_by_branch_in_value_and_gradient(rep, kernel):
    layer = layer_of(rep, kernel=kernel)
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    parts = [x, *layer.parameters()]
    direction = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    merged, apart = layer(x), layer.branch_by_branch(x)
    torch.testing.assert_close(merged, apart, rtol=1e-12, atol=1e-10)
    ours, theirs = (
        torch.autograd.grad((y * direction).sum(), parts, allow_unused=True)
        for y in (merged, apart)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_equal_chains_are_one_wide_chain():
    """Four separate chains against the single wide chain of `4*1-k`."""
    wide = layer_of("4*1-k")
    chains = [layer_of("1-k") for _ in range(4)]
    for i, chain in enumerate(chains):
        part = slice(8 * i, 8 * i + 8)
        for link, full in zip(chain.branches[0], wide.branches[0], strict=True):
            widening = full.out_channels == 32
            link.weight.data = full.weight.data[part] if widening else full.weight.data[:, part]
            link.bias.data = full.bias.data[part] if widening else full.bias.data / 4
    x = torch.randn(1, 4, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(wide(x), sum(chain.branch_by_branch(x) for chain in chains))


def test_schema_says_number_and_ratio():
    assert read_schema("espan") == [(4, ("1", "k"), 2), (1, ("1",), 2), (1, ("k",), 2)]
    assert read_schema("3*1-k-1@5") == [(3, ("1", "k", "1"), 5)]
    three = RepConv(4, 6, 3, "3*1-k-1@5")
    assert [link.out_channels for link in three.branches[0]] == [20, 30, 6]
    assert len(three.branches) == 3
    assert [link.out_channels for link in RepConv(4, 6, 3, "k-1@3").branches[0]] == [18, 6]


def test_identity_is_left_out_where_channels_differ():
    assert len(RepConv(3, 8, 9, "id, k").branches) == 1
    with pytest.raises(InputError, match="no branch for 3 -> 8"):
        RepConv(3, 8, 9, "id")


@pytest.mark.parametrize(
    "rep", ["", "k,", "0*k", "k@0", "1-1", "k-k", "1-sobel", "2*", "*k", "a b"]
)
def test_invalid_schemas_are_refused(rep):
    with pytest.raises(InputError, match="rep: expected plain, "):
        read_schema(rep)


@pytest.mark.parametrize(
    "rep", [rep for rep in SCHEMAS if "k" in PRESETS.get(rep, rep).split(", ")]
)
def test_set_kernel_sets_the_merged_kernel(rep):
    layer = layer_of(rep)
    weight, bias = torch.randn(4, 4, 3, 3).double(), torch.randn(4).double()
    layer.set_kernel(weight, bias)
    for got, wanted in zip(layer.merged(), (weight, bias), strict=True):
        torch.testing.assert_close(got, wanted)


def test_merge_keeps_float32_under_autocast():
    layer = RepConv(8, 8, 3, "espan")
    x = torch.randn(1, 8, 6, 6)
    weight, bias = layer.merged()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        wanted = nn.functional.conv2d(x, weight, bias, padding=1)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, wanted)


@pytest.mark.parametrize("rep", [None, "espan", "ecb", "span"])
def test_every_parameter_has_one_optimizer(rep):
    net = ESPAN(8, 2, 2, 4, rep)
    optimizers = optimizers_of(net, net, TrainConfig(data="data", out="out"))
    groups = [group for each in optimizers for group in each.param_groups]
    trained = [p for group in groups for p in group["params"]]
    assert len(trained) == len(set(trained)) == len(list(net.parameters()))
    rates = {group["lr"] for group in optimizers[1].param_groups}
    assert max(rates) == 7e-4 and (len(rates) > 1) == (rep is not None)


def test_a_network_with_a_schema_of_its_own_folds():
    net = ESPAN(8, 1, 1, 2, "2*1-k@3, k, id").double()
    x = torch.rand(1, 3, 9, 8, dtype=torch.float64)
    assert (fold(net)(x) - net(x)).abs().max() < 1e-10
