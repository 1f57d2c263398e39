"""Property-based tests: results do not depend on shapes, strides, dtypes and tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espan import SPAN, SPANF, Upscaler
from tests.kernels import test_exact as exact
from tests.support.contract import DEVICE, mapped
from tests.support.gpu import GPU
from tests.support.guards import guarded, guarded_outputs
from tests.support.makers import noise, random_net

pytestmark = pytest.mark.usefixtures("kernel_device")

FEW = settings(max_examples=40, derandomize=True, deadline=None, database=None)
MAKERS = {
    "span_gate": lambda h, w, c: exact.of_span_gate(h, w, c),
    "conv3x3": lambda h, w, c: exact.of_conv3x3(h, w, c, ("none", "silu", "gate")[c % 3]),
    "spab": lambda h, w, c: exact.of_spab(h, w, c, 2 + c % 2),
    "conv9x9_head": exact.of_head,
    "tail": lambda h, w, c: exact.of_tail(h, w, c, (3, 1, 1, 1)[: 2 + c % 3], 2 + c % 3),
}
ORDERS = st.permutations(range(4))
STEPS = st.tuples(*[st.sampled_from([1, 1, 2, 3])] * 4)


def laid_out(t: torch.Tensor, order: list[int], steps: tuple[int, ...]) -> torch.Tensor:
    """A copy of t with dimensions stored in `order` with strides times `steps`, poison in gaps."""
    if t.dim() != 4:
        steps, order = steps[: t.dim()], [i for i in order if i < t.dim()]
    wide = [n * step for n, step in zip(t.shape, steps, strict=True)]
    memory, _ = guarded(torch.empty([wide[i] for i in order], dtype=t.dtype, device=t.device))
    back = [order.index(i) for i in range(t.dim())]
    return memory.permute(back)[tuple(slice(None, None, step) for step in steps)].copy_(t)


def assert_exact_in_layout(name, impl, dtype, made, order, steps) -> None:
    args, truth = made
    args = mapped(args, lambda t: laid_out(t.to(DEVICE, dtype), order, steps))
    with guarded_outputs(), torch.no_grad():
        got = exact.OPS[name](*args, impl=impl)
    assert got.dtype == dtype
    assert torch.equal(got.double().round(decimals=9).cpu(), truth)


@FEW
@given(
    name=st.sampled_from([*MAKERS]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(1, 20),
    order=ORDERS,
    steps=STEPS,
)
def test_any_image_through_triton(name, dtype, height, width, channels, order, steps):
    torch.manual_seed(height + 21 * width)
    made = MAKERS[name](height, width, channels)
    assert_exact_in_layout(name, "triton", dtype, made, order, steps)


@pytest.fixture(scope="module")
def cuda(shim_module):
    """The host build, as in fixture `shim`, for the entire module."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"MODULE": shim_module, "REASON": None, "DEVICE": "cpu"}.items():
            patch.setattr(f"espan_kernels.native.{key}", value)
        yield


@pytest.mark.skipif(GPU, reason="for the host build")
@FEW
@given(
    name=st.sampled_from(["span_gate", "conv3x3", "spab", "conv9x9_head", "tail"]),
    height=st.integers(1, 9),
    width=st.integers(1, 70),
    channels=st.integers(25, 32),
    order=ORDERS,
    steps=STEPS,
    seed=st.integers(0, 9),
)
def test_any_image_through_cuda(
    cuda, shim_module, name, height, width, channels, order, steps, seed
):
    torch.manual_seed(height + 21 * width)
    shim_module.seed(seed)
    if name == "tail":
        made = exact.of_tail(height, width, channels, (3, 1, 1, 1)[: 3 + seed % 2], 2 + seed % 3)
    else:
        made = MAKERS[name](height, width, channels)
    assert_exact_in_layout(name, "cuda", torch.float16, made, order, steps)


NETS = {
    2: random_net(scale=2, channels=4),
    3: random_net(SPANF, scale=3, blocks=2, channels=4),
    4: random_net(SPAN, blocks=1, img_range=1.0, channels=4),
}


@FEW
@given(
    scale=st.sampled_from([*NETS]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    tile=st.tuples(st.integers(1, 45), st.integers(1, 45)),
    kind=st.sampled_from([(np.uint8, 3), (np.uint8, 0), (np.uint16, 4), (np.float32, 2)]),
    backend=st.sampled_from(["auto", "eager"]),
)
def test_any_tile_gives_the_untiled_result(scale, height, width, tile, kind, backend):
    if height * width > 30 * min(tile[0] * tile[1], 100):
        tile = (tile[0] + 20, tile[1] + 20)  # thousands of tiles take long
    dtype, channels = kind
    image = noise(height, width, *([channels] if channels else []), dtype=dtype)
    options = {"device": "cpu", "dtype": "fp32", "backend": backend}
    whole = Upscaler(NETS[scale], tile=None, **options)(image)
    tiled = Upscaler(NETS[scale], tile=tile, **options)(image)
    assert tiled.shape == whole.shape == (scale * height, scale * width, *image.shape[2:])
    allowed = {np.uint8: 1, np.uint16: 1, np.float32: 1e-5}[dtype]
    off = np.abs(tiled.astype(np.float64) - whole)
    assert off.max() <= allowed and (off > 0).mean() < (0.01 if allowed == 1 else 1)
