"""Tensors of more than 2^31 elements are correct at their far ends; uses sparse memory."""

import sys

import pytest
import torch

from espan_kernels import OPS, layout, native, span_gate
from espan_kernels.conv3x3 import kernel_cuda as conv_kernel
from espan_kernels.conv9x9_head import kernel_cuda as head_kernel
from espan_kernels.spab import kernel_cuda as spab_kernel
from espan_kernels.tail import kernel_cuda as tail_kernel
from tests.kernels import test_exact as exact
from tests.support.contract import mapped
from tests.support.gpu import GPU
from tests.support.makers import python
from tests.support.sparse import sparse

pytestmark = [
    pytest.mark.usefixtures("kernel_device"),
    pytest.mark.skipif(GPU, reason="for the host build and the interpreter"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory without pages is Linux's"),
]

# A wrong address may kill the process, so Triton's interpreter runs in a separate one.
FAR = """
import torch
from espan_kernels import OPS, layout
from tests.kernels import test_exact as exact
from tests.support.contract import mapped
from tests.support.sparse import sparse, spread

def far(shape, dim):
    "Strides that take the last index of dimension dim past 2^31 elements, dense otherwise."
    strides, step = [0] * 4, 1
    for i in sorted(range(4), key=lambda i: (i == dim, -i)):
        last = max(shape[i] - 1, 1)
        strides[i] = step if i != dim else max(step, 2**31 // last + 1)
        step *= shape[i]
    return tuple(strides)

real = layout.empty

def empty(like, shape, dtype=None, channels_last=None):
    strides = far(shape, DIM)
    span = 1 + sum((n - 1) * s for n, s in zip(shape, strides))
    return sparse(span, dtype or like.dtype).as_strided(shape, strides)

torch.manual_seed(0)
for DIM in range(4):
    for name, impl, make in [
        ("conv3x3", "triton", lambda: exact.of_conv3x3(4, 18, 3)),
        ("conv9x9_head", "triton", lambda: exact.of_head(4, 18, 3)),
        ("spab", "triton", lambda: exact.of_spab(4, 18, 16, 2)),
        ("tail", "triton", lambda: exact.of_tail(4, 18, 3)),
    ]:
        args, truth = make()
        args = mapped(args, lambda t: t.float())
        images = mapped(
            args, lambda t: spread(t, far(t.shape, DIM)) if t.shape[2:] == (4, 18) else t
        )
        got = OPS[name](*images, impl=impl)
        layout.empty = empty
        elsewhere = OPS[name](*args, impl=impl)
        layout.empty = real
        assert max(elsewhere.stride()) * (max(elsewhere.shape) - 1) > 2**31 or DIM == 0
        for each in (got, elsewhere):
            assert torch.equal(each.double().round(decimals=9), truth), (name, DIM)
print("right")
"""


def test_strides_past_2_to_the_31_in_triton():
    done = python(FAR)
    assert done.returncode == 0 and done.stdout == "right\n", done.stderr[-2000:]


# Planes and channels_last of 32 channels: more than 2^31 elements. Images, rows, columns.
MANY, LARGE = (400_000, 4, 50), (1, 8200, 8230)
# What is looked at: the last rows and columns, which the last blocks make, and what they read.
ROWS, COLUMNS, READ = 1, 20, (14, 48)


@pytest.fixture
def last_blocks(host_build, shim_module):
    """Makes the host build run the last blocks of a launch alone, each with one of the last items
    of its work: what lies before is neither read nor written."""
    shim_module.run_last_blocks(6)
    yield
    shim_module.run_last_blocks(0)


def memory(channels: int, size, name: str, scale: int = 1) -> torch.Tensor:
    """(N, C, H, W), in planes (N, C / 8, H, W, 8), without pages."""
    n, height, width = size[0], scale * size[1], scale * size[2]
    flat = sparse(n * channels * height * width, torch.float16)
    if name == "nc8hw8":
        return flat.view(n, channels // 8, height, width, 8)
    if name == "channels_last":
        return flat.view(n, height, width, channels).permute(0, 3, 1, 2)
    return flat.view(n, channels, height, width)


def place(values: torch.Tensor, size, name: str) -> torch.Tensor:
    """Zero images with the values (1, C, h, w) in the far corner of the last one."""
    height, width = values.shape[2:]
    out = memory(values.size(1), size, name)
    if name == "nc8hw8":
        out[-1:, :, -height:, -width:] = layout.to_nc8hw8(values.half())
    else:
        out[-1:, :, -height:, -width:] = values.half()
    return out


def corner(out: torch.Tensor, name: str, scale: int = 1) -> torch.Tensor:
    last = out[-1:, :, -ROWS * scale :, -COLUMNS * scale :]
    return layout.from_nc8hw8(last, 8 * last.size(1)) if name == "nc8hw8" else last


def assert_corner(out: torch.Tensor, truth: torch.Tensor, name: str, scale: int = 1) -> None:
    assert out.numel() > 2**31
    expected = truth[:, :, -ROWS * scale :, -COLUMNS * scale :]
    assert expected.any()
    got = corner(out, name, scale).double().round(decimals=9)
    assert torch.equal(got, expected), f"{(got != expected).sum()} of {got.numel()} differ"


def read_part(size) -> tuple[int, int]:
    return min(READ[0], size[1]), READ[1]


@pytest.mark.parametrize("size", [MANY, LARGE], ids=str)
@pytest.mark.parametrize("name", ["nc8hw8", "channels_last"])
@pytest.mark.parametrize("convs", [1, 2, 3])
def test_far_ends_of_convolutions(last_blocks, convs, name, size):
    if convs == 1:
        (x, weight, bias, _, gate), truth = exact.of_conv3x3(*read_part(size), 32, "gate")
        x, gate, truth = x[:1], gate[:1], truth[:1]
        out = memory(32, size, name)
        packed = conv_kernel.pack(weight.half(), bias.half(), plain=False)
        args = place(x, size, name), packed, out, "none", place(gate, size, name), name
        conv_kernel.launch(*args)
    else:
        (x, weights, biases), truth = exact.of_spab(*read_part(size), 32, convs)
        out = memory(32, size, name)
        packed = spab_kernel.pack([w.half() for w in weights], [b.half() for b in biases])
        spab_kernel.launch(place(x, size, name), packed, out, name)
    assert_corner(out, truth, name)


@pytest.mark.parametrize("size", [MANY, LARGE, (1, 27_000, 27_000)], ids=str)
@pytest.mark.parametrize("x_layout", ["contiguous", "channels_last"])
def test_far_ends_of_the_head(last_blocks, x_layout, size):
    (x, weight, bias), truth = exact.of_head(*read_part(size), 32)
    out = memory(32, size, "nc8hw8")
    packed = head_kernel.pack(weight.half(), bias.half())
    head_kernel.launch(place(x, size, x_layout), x_layout, packed, out, "nc8hw8")
    assert_corner(out, truth, "nc8hw8")


@pytest.mark.parametrize("size", [MANY, LARGE], ids=str)
@pytest.mark.parametrize("out_layout", ["contiguous", "channels_last"])
def test_far_ends_of_the_tail(last_blocks, out_layout, size):
    made, truth = exact.of_tail(*read_part(size), 32, (3, 1, 1), 4)
    inputs, weights, bias, up_weight, up_bias, *_ = mapped(made, lambda t: t.half())
    out = memory(3, size, out_layout, 4)
    features = [place(x, size, "nc8hw8") for x in inputs]
    packed = tail_kernel.pack(weights, bias, up_weight, up_bias)
    tail_kernel.launch(features, "nc8hw8", packed, out, out_layout, 4, False)
    assert_corner(out, truth, out_layout, 4)


def test_far_end_of_the_gate(last_blocks):
    x, y, out = (sparse(2**31 + 5001, torch.float16) for _ in range(3))
    (a, b), truth = exact.of_span_gate(10, 20)
    x[-1200:], y[-1200:] = a.flatten().half(), b.flatten().half()
    native.call("span_gate", out, x=x, y=y, out=out, size=out.numel(), dtype=out.dtype)
    assert torch.equal(out[-1200:].double(), truth.flatten())
    assert torch.equal(span_gate(a.half(), b.half()).double(), truth)


def test_all_ops_are_covered():
    assert {*OPS} == {
        *("span_gate", "span_gate_backward", "conv3x3", "conv9x9_head", "spab", "tail"),
        *("dct2", "dct_l1"),  # for training patches, which never have 2^31 pixels
    }
