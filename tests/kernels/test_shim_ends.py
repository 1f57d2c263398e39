"""The network's two ends in the host build: exact values, every layout, planted bugs."""

import re

import pytest
import torch

from espan_kernels import OPS, conv9x9_head, layout, native, tail
from espan_kernels.conv9x9_head import kernel_cuda as head_door
from espan_kernels.tail import kernel_cuda as tail_door
from tests.support import shim as host
from tests.support.contract import DEVICE
from tests.support.guards import assert_bands, guarded

pytestmark = pytest.mark.usefixtures("kernel_device")

HEAD, TAIL = OPS["conv9x9_head"], OPS["tail"]
ESPAN, SPAN = [(32, 3), (32, 1), (32, 1)], [(32, 3), (32, 1), (32, 1), (32, 1)]


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def whole_numbers(low: int, high: int, *shape: int) -> torch.Tensor:
    """Integers, mostly 0, so that sums of products stay exact in float16."""
    numbers = torch.randint(low, high + 1, shape) * (torch.rand(shape) < 0.1)
    return numbers.to(DEVICE, torch.float16)


def in_memory(shape, dtype, name):
    """(poisoned dense memory in layout `name`, the buffer around it)"""
    memory_format = torch.channels_last if name == "channels_last" else torch.contiguous_format
    return guarded(torch.empty(shape, dtype=dtype, device=DEVICE, memory_format=memory_format))


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("x_layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["nc8hw8", "channels_last"])
def test_shim_head_is_exact_in_every_layout(x_layout, name):
    x = whole_numbers(-3, 3, 2, 3, 11, 33)
    weight, bias = whole_numbers(-2, 2, 32, 3, 9, 9), whole_numbers(-50, 50, 32)
    shape = (2, 4, 11, 33, 8) if name == "nc8hw8" else (2, 32, 11, 33)
    out, buffer = in_memory(shape, torch.float16, name)
    given = channels_last(x) if x_layout == "channels_last" else x
    head_door.launch(given, x_layout, head_door.pack(weight, bias), out, name)
    got = layout.from_nc8hw8(out, 32) if name == "nc8hw8" else out
    assert torch.equal(got.double(), HEAD.reference(x.double(), weight.double(), bias.double()))
    assert_bands(buffer)


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("name", ["nc8hw8", "channels_last"])
@pytest.mark.parametrize("out_layout", ["contiguous", "channels_last"])
# Lines of pixels are multiples of 16 bytes, 4 bytes, and one element.
@pytest.mark.parametrize(
    ("scale", "size", "dtype"),
    [
        (4, (3, 64), torch.float16),
        (4, (2, 9), torch.uint8),
        (3, (2, 61), torch.uint8),
        (2, (7, 62), torch.float16),
    ],
)
def test_shim_tail_is_exact_in_every_layout(name, out_layout, scale, size, dtype):
    inputs = [whole_numbers(-2, 2, 2, 32, *size) for _ in range(3)]
    weights = [whole_numbers(-1, 1, 32, 32, k, k) for k in (3, 1, 1)]
    bias, up_bias = whole_numbers(-9, 9, 32), whole_numbers(-9, 9, 3 * scale**2)
    up_weight = whole_numbers(-1, 1, 3 * scale**2, 32, 3, 3)
    uint8 = dtype == torch.uint8
    if uint8:  # Levels of every height, with whole numbers before the last multiplication.
        up_weight, up_bias = up_weight / 256, up_bias / 64
    truth = TAIL.reference(
        [x.double() for x in inputs],
        [w.double() for w in weights],
        *(t.double() for t in (bias, up_weight, up_bias)),
        *(scale, False, uint8),
    )
    out, buffer = in_memory((2, 3, scale * size[0], scale * size[1]), dtype, out_layout)
    features = [layout.to_nc8hw8(x) if name == "nc8hw8" else channels_last(x) for x in inputs]
    packed = tail_door.pack(weights, bias, up_weight, up_bias)
    tail_door.launch(features, name, packed, out, out_layout, scale, False)
    assert torch.equal(out.double(), truth.double())
    assert_bands(buffer)


@pytest.mark.usefixtures("shim")
def test_shim_uint8_rounds_halves_to_even_and_saturates():
    # Outputs equal the up conv's bias: levels n + 1/2, and values outside 0..1.
    levels = torch.tensor([-3.0, 0.5, 1.5, 2.5, 99.5, 100.5, 127, 254.5, 254.6, 255, 256, 9e6])
    *given, _, _, _ = TAIL.make((1, 32, ESPAN, 2, 1, 1, False, True), torch.float16, DEVICE)
    given[3:] = torch.zeros(12, 32, 3, 3).to(given[2]), (levels / 255).to(given[2])
    expected = tail(*given, scale=2, uint8=True, impl="eager")
    assert torch.equal(tail(*given, scale=2, uint8=True, impl="cuda"), expected)


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("uint8", [False, True])
def test_shim_tail_of_nan_and_infinity(uint8):
    inputs, *rest, scale, clamp, _ = TAIL.make(
        (1, 32, ESPAN, 4, 7, 9, True, uint8), torch.float16, DEVICE
    )
    for x, place in zip(inputs, [(3, 4), (0, 0), (6, 8)], strict=True):
        x[:, :, place[0], place[1]] = float("nan")
    ours, eager = (
        tail(inputs, *rest, scale=scale, clamp=clamp, uint8=uint8, impl=impl)
        for impl in ("cuda", "eager")
    )
    if uint8:
        assert (ours.int() - eager.int()).abs().max() <= 1
    else:
        assert torch.equal(ours.isnan(), eager.isnan())


@pytest.mark.usefixtures("shim")
def test_shim_head_of_an_infinite_pixel_reaches_4_columns():
    x, weight, bias = HEAD.make((1, 32, 12, 40, False), torch.float16, DEVICE)
    x[0, 1, 5, 20] = float("inf")
    finite = conv9x9_head(x, weight, bias, impl="cuda").isfinite().all(1)[0]
    inside = torch.zeros_like(finite)
    inside[1:10, 16:25] = True
    assert torch.equal(~finite, inside)


@pytest.mark.usefixtures("shim")
def test_shim_segments_meet():
    # Enough rows for three multiprocessors, and 4 strips.
    x, weight, bias = HEAD.make((1, 32, 40, 50, True), torch.float16, DEVICE)
    torch.testing.assert_close(
        conv9x9_head(x, weight, bias, impl="cuda"),
        HEAD.reference(x, weight, bias),
        atol=0.01,
        rtol=2e-3,
    )
    *given, scale, clamp, uint8 = TAIL.make(
        (1, 32, SPAN, 4, 40, 8, False, True), torch.float16, DEVICE
    )
    off = (
        tail(*given, scale=scale, uint8=True, impl="cuda").int()
        - TAIL.reference(*given, scale, clamp, uint8).int()
    )
    assert off.abs().max() <= 1


# {(file, how it shows): {bug: {text: its replacement}}}
PLANTED = {
    ("head_rows.cuh", "wrong values"): {
        "no barrier after a row is stored": {
            "phase % AHEAD);\n        warp_sync();": "phase % AHEAD);"
        },
        "the copy one half off": {"2 * COPY - 1": "2 * COPY"},
    },
    ("head_rows.cuh", r"global\[-\d+\] of 3360"): {
        "rows read above the image": {
            "has_column && unsigned(top + row) < unsigned(height)": "has_column"
        },
    },
    ("conv9x9_head.cu", r"global\[\d+\] of 17920"): {
        "columns stored outside the image": {"if (x0 + g + 8 * j < work.cut.width) ": ""},
    },
    ("tail.cu", "wrong values"): {
        "no barrier after the copies": {
            "cp_async_wait<1>();\n                bar_sync(LOADED, ROLE_THREADS);": (
                "cp_async_wait<1>();"
            )
        },
        "a wait too few": {"cp_async_wait<1>();": "cp_async_wait<2>();"},
        "the sum outside of the image kept": {"inside ? pack_half2": "true ? pack_half2"},
        "a row of the 1x1 convolutions off": {"load_singles(i + 1, 0)": "load_singles(i, 0)"},
        "pixels written before all are staged": {"bar_sync(STAGED, ROLE_THREADS);": ""},
        "a slot freed before it is read": {
            "bar_arrive(empty(u), 2 * ROLE_THREADS);": "",
            "bar_sync(full(u), 2 * ROLE_THREADS);": (
                "bar_sync(full(u), 2 * ROLE_THREADS); bar_arrive(empty(u), 2 * ROLE_THREADS);"
            ),
        },
    },
    ("tail.cu", "deadlock in block 0: thread .* waits for a barrier"): {
        "a slot never freed": {"bar_arrive(empty(u), 2 * ROLE_THREADS);": ""},
    },
    ("tail.cu", r"shared\[\d+\] of 6336"): {
        "the ring read past its end": {"RING + pixel_word": "RING + SLOT + pixel_word"},
    },
    ("tail_pixels.cuh", r"global\[\d+\] of"): {
        "lines written beyond the image": {"min(USEFUL, width - column)": "USEFUL"},
    },
}
BUGS = [
    (file, how, bug, change)
    for (file, how), bugs in PLANTED.items()
    for bug, change in bugs.items()
]


def caught(module, file) -> str | None:
    """How a run of the kernel in `file` reveals a bug under one of a few thread orders, or None."""
    op = HEAD if file in ("conv9x9_head.cu", "head_rows.cuh") else TAIL
    case = (1, 32, 16, 70, True) if op is HEAD else (1, 32, ESPAN, 4, 11, 64, False, False)
    args = op.make(case, torch.float16)
    truth = op.reference(*args)
    for seed in range(3):
        module.seed(seed)
        try:
            got = op(*args, impl="cuda")
        except native.CudaError as error:
            return str(error)
        if not torch.allclose(got, truth, atol=0.03, rtol=0.01):
            return "wrong values"
    return None


def use(monkeypatch, module):
    monkeypatch.setattr(native, "MODULE", module)
    monkeypatch.setattr(native, "REASON", None)
    monkeypatch.setattr(native, "DEVICE", module.DEVICE)


@pytest.mark.parametrize("file", ["conv9x9_head.cu", "tail.cu"])
def test_shim_no_false_positives(monkeypatch, shim_module, file):
    use(monkeypatch, shim_module)
    assert caught(shim_module, file) is None


@pytest.mark.parametrize(("file", "how", "bug", "change"), BUGS, ids=[bug for *_, bug, _ in BUGS])
def test_shim_finds_planted_bugs(monkeypatch, shim_objects, tmp_path, file, how, bug, change):
    header = file if file.endswith(".cuh") else ""
    source = file
    if header:
        source = "conv9x9_head.cu" if file == "head_rows.cuh" else "tail.cu"
    module = host.patched(shim_objects, tmp_path, source, change, header)
    use(monkeypatch, module)
    assert re.search(how, caught(module, file) or "nothing")
