"""Integers through every kernel: sums are exact in any order, so results are bit-identical.

Activations are multiples of 128, where SiLU is z or 0, and sigmoid(z) - 1/2 is 1/2, -1/2 or, for
z = 0, 0. So entire blocks are exact too.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from espan_kernels import OPS
from tests.support.contract import DEVICE, LENGTHS, banded, mapped
from tests.support.guards import guarded_outputs

pytestmark = pytest.mark.usefixtures("kernel_device")

STEP = 128
# The maximum of float16 is 65504; convolution sums are far below it here.
LARGEST = 60000


def numbers(*shape: int, share: float, step: int = 1) -> Tensor:
    """-step, 0 or step in float64; a fraction `share` is not 0."""
    return step * torch.randint(0, 2, shape).mul(2).sub(1) * (torch.rand(shape) < share).double()


def silu(z: Tensor) -> Tensor:
    return z.clamp(min=0)


def gate(x: Tensor, h: Tensor) -> Tensor:
    return (h + x) * h.sign() / 2


def conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def of_span_gate(h: int, w: int, channels: int = 3):
    args = [numbers(2, channels, h, w, share=0.7, step=STEP) for _ in range(2)]
    return args, gate(*args)


def layer(channels_in: int, channels: int, kernel: int = 3, share: float = 0.03):
    weight = numbers(channels, channels_in, kernel, kernel, share=share)
    return weight, numbers(channels, share=0.8, step=2 * STEP)


def of_conv3x3(h: int, w: int, channels: int = 3, epilogue: str = "gate"):
    x = numbers(2, channels, h, w, share=0.7, step=STEP)
    weight, bias = layer(channels, channels, share=0.3 if channels < 16 else 0.05)
    residual = numbers(2, channels, h, w, share=0.7, step=STEP) if epilogue == "gate" else None
    z = conv(x, weight, bias)
    truth = {"none": lambda: z, "silu": lambda: silu(z), "gate": lambda: gate(residual, z)}
    act = "none" if epilogue == "gate" else epilogue
    return (x, weight, bias, act, residual), truth[epilogue]()


def of_spab(h: int, w: int, channels: int = 16, convs: int = 3):
    x = numbers(1, channels, h, w, share=0.5, step=STEP)
    layers = [layer(channels, channels, share=6 / (9 * channels)) for _ in range(convs)]
    z = x
    for weight, bias in layers[:-1]:
        z = silu(conv(z, weight, bias))
    weights, biases = map(list, zip(*layers, strict=True))
    return (x, weights, biases), gate(x, conv(z, *layers[-1]))


def of_head(h: int, w: int, channels: int = 4):
    x = numbers(1, 3, h, w, share=0.8)
    weight, bias = numbers(channels, 3, 9, 9, share=0.3), numbers(channels, share=0.8, step=9)
    return (x, weight, bias), conv(x, weight, bias)


def of_tail(h: int, w: int, channels: int = 4, kernels=(3, 1, 1), scale: int = 2):
    inputs = [numbers(1, channels, h, w, share=0.5 if h * w > 9 else 1) for _ in kernels]
    weights = [numbers(channels, channels, k, k, share=0.1 if k > 1 else 0.4) for k in kernels]
    bias, up_bias = (numbers(n, share=0.8, step=9) for n in (channels, 3 * scale**2))
    up_weight = numbers(3 * scale**2, channels, 3, 3, share=0.1 if channels > 16 else 0.5)
    total = sum(conv(x, weight, None) for x, weight in zip(inputs, weights, strict=True))
    total = total + bias[:, None, None]
    truth = F.pixel_shuffle(conv(total, up_weight, up_bias), scale)
    return (inputs, weights, bias, up_weight, up_bias, scale, False, False), truth


def assert_exact(name: str, impl: str, dtype: torch.dtype, made) -> None:
    """The op's result on integers between guard bands is exact."""
    args, truth = made
    for tensor in (*tensors(args), truth):
        assert tensor.any(), "nothing but zeros proves nothing"
    assert truth.abs().max() < LARGEST
    args = mapped(args, lambda t: banded(t.to(DEVICE, dtype)))
    with guarded_outputs(), torch.no_grad():
        got = OPS[name](*args, impl=impl)
    # SiLU of a large negative number is a little less than 0 in float32.
    got = got.double().round(decimals=9).cpu()
    wrong = (got != truth).sum().item()
    assert not wrong, f"{name} {impl} {dtype}: {wrong} of {truth.numel()} numbers are not exact"


def tensors(args) -> list[Tensor]:
    found = []
    mapped(args, found.append)
    return found


MADE = {
    "span_gate": [lambda: of_span_gate(9, 13)],
    "conv3x3": [lambda e=e: of_conv3x3(9, 18, 20, e) for e in ("none", "silu", "gate")],
    "spab": [lambda n=n: of_spab(9, 18, 32, n) for n in (2, 3)],
    "conv9x9_head": [lambda: of_head(11, 18, 28)],
    "tail": [
        lambda: of_tail(5, 18, 28, (3, 1, 1), 4),
        lambda: of_tail(5, 18, 32, (3, 1, 1, 1), 3),
    ],
}
EVERY = [(name, i) for name, makers in MADE.items() for i in range(len(makers))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("impl", ["eager", "triton"])
@pytest.mark.parametrize(("name", "i"), EVERY, ids=str)
def test_whole_numbers_are_exact(name, i, impl, dtype):
    assert_exact(name, impl, dtype, MADE[name][i]())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_results_are_rounded_to_the_nearest(dtype):
    x, y = (torch.randn(1, 4, 16, 16).to(DEVICE, dtype) for _ in range(2))
    truth = OPS["span_gate"].reference(x.float(), y.float()).to(dtype)
    same = OPS["span_gate"](x, y, impl="triton") == truth
    assert same.float().mean() > 0.98  # with truncation it would be half of them


def test_levels_are_rounded_to_the_nearest():
    """Outputs equal the up conv's bias: levels n + 1/2, which round to even, and others."""
    levels = torch.tensor([-3.0, 0.5, 1.5, 2.5, 99.5, 100.5, 127, 254.5, 254.6, 255, 256, 9e6])
    args, _ = of_tail(3, 5, 16)
    inputs, weights, bias, up_weight, *_ = mapped(args, lambda t: t.float().to(DEVICE))
    up_bias = (levels / 255).to(DEVICE)
    tail = inputs, weights, bias, 0 * up_weight, up_bias, 2, False, True
    got, expected = (OPS["tail"](*tail, impl=impl) for impl in ("triton", "eager"))
    assert torch.equal(got, expected) and len(got.unique()) == 6


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize(("name", "i"), EVERY, ids=str)
def test_whole_numbers_are_exact_in_cuda(name, i):
    assert_exact(name, "cuda", torch.float16, MADE[name][i]())


# Each length as height and as width, in small and large images. (conv3x3 has its own test.)
SWEEP = {
    "span_gate": of_span_gate,
    "spab": lambda h, w: of_spab(h, w, 3, 2),
    "conv9x9_head": of_head,
    "tail": of_tail,
}


@pytest.mark.parametrize("name", SWEEP)
def test_every_length(name):
    for side in LENGTHS:
        other = 1 + 66 // side
        height, width = (side, other) if side % 2 else (other, side)
        assert_exact(name, "triton", torch.float32, SWEEP[name](height, width))


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("name", ["conv3x3", "spab", "conv9x9_head", "tail"])
def test_every_size_from_1_to_67_in_cuda(name):
    makers = {
        "conv3x3": lambda h, w: of_conv3x3(h, w, 24),
        "spab": lambda h, w: of_spab(h, w, 24, 2),
        "conv9x9_head": lambda h, w: of_head(h, w, 32),
        "tail": lambda h, w: of_tail(h, w, 32),
    }
    for width in range(1, 68):
        assert_exact(name, "cuda", torch.float16, makers[name](1 + width % 3, width))
