"""The order in which implementations are tried matches the records."""

import json
from pathlib import Path

import pytest
import torch

from bench.record import Record
from espan.backends import kernels
from espan.backends.program import Fused
from espan.networks.span import SPAN
from espan_kernels import OPS, machine, order
from tests.support.contract import DEVICE

RESULTS = Path(__file__).parents[2] / "bench/results"
# Compute capability of GPUs whose records lack it.
CAPABILITIES = {"NVIDIA H100 80GB HBM3": [9, 0]}
NO_GPU = machine.needs_cuda, machine.needs_wgmma, machine.needs_triton
# Times of repeated runs on a GPU differ by less than this factor.
NOISE = 1.1
FAKE = {
    (9, 0): {
        "op": {(10, 10): {"b": 1.0, "eager": 2.0}, (40, 40): {"a": 1.0, "b": 3.0, "eager": 2.0}}
    },
    (8, 9): {
        "op": {(10, 10): {"c": 3.0, "eager": 2.0}},
        "other": {(9, 9): {"a": 3.0, "eager": 2.0}},
    },
}


def gpu_records() -> dict[str, tuple[tuple[int, int], dict]]:
    """{name: (compute capability, {op: {size: {implementation: milliseconds}}})}"""
    found = {}
    for path in sorted(RESULTS.glob("*.json")):
        record = Record.read(path)
        if record.machine["kind"] != "cuda":
            continue
        device = record.machine["device"]
        capability = record.machine.get("capability") or CAPABILITIES[device]
        times: dict = {}
        for row in record.rows:
            usual = "fp32" if row.op.startswith("dct") else "fp16"
            if row.op not in OPS or row.dtype != usual:
                continue
            if row.impl in {"eager", *(kernel.name for kernel in OPS[row.op].kernels)}:
                size = tuple(map(int, row.shape.split("x")))
                here = times.setdefault(row.op, {}).setdefault(size, {})
                here[row.impl] = float(f"{1e3 * row.median:.3g}")
        found[path.stem] = tuple(capability), times
    return found


RECORDS = gpu_records()


@pytest.mark.parametrize("name", RECORDS)
def test_order_matches_the_records(name):
    capability, recorded = RECORDS[name]
    table = order.MILLISECONDS
    assert capability in table, f"espan_kernels/order.py lacks {capability}: {recorded},"
    for op, sizes in recorded.items():
        for size, times in sizes.items():
            impls = [impl for impl in times if impl != "eager"]
            first = [*order.fastest_first(op, impls, capability, size[0] * size[1]), "eager"][0]
            assert times[first] <= NOISE * min(times.values()), f"{op} at {size}: {times}"


def test_every_time_comes_from_a_record():
    for capability, ops in order.MILLISECONDS.items():
        for op, sizes in ops.items():
            assert [*sizes] == sorted(sizes, key=lambda size: size[0] * size[1])
            for size, times in sizes.items():
                said = [
                    recorded.get(op, {}).get(size)
                    for of, recorded in RECORDS.values()
                    if of == capability
                ]
                assert times in said, f"{op} at {size} on {capability}: {times}"


def test_first_gpu_record_is_unchanged():
    """Its rows include implementations that have since been removed."""
    rows = json.loads((RESULTS / "h100.json").read_text())["rows"]
    assert {"op": "spab", "impl": "triton_fused"}.items() <= rows[12].items()


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(order, "MILLISECONDS", FAKE)


def first(op, capability, pixels):
    return order.fastest_first(op, ["a", "b", "c"], capability, pixels)


@pytest.mark.usefixtures("fake")
def test_fastest_first_of_the_nearest_size():
    # The geometric mean of 100 and 1600 pixels is 400.
    assert [first("op", (9, 0), n) for n in (0, 1, 399)] == [["b"]] * 3
    assert [first("op", (9, 0), n) for n in (400, 10**9)] == [["a"]] * 2
    assert order.exclusion_reason("op", "a", (9, 0), 1) == (
        "not timed against eager (10x10, compute capability 9.0)"
    )
    assert order.exclusion_reason("op", "b", (9, 0), 1600) == (
        "slower than eager where measured: 3.0 ms vs 2.0 ms (40x40, compute capability 9.0)"
    )


@pytest.mark.usefixtures("fake")
def test_unknown_gpu_uses_the_ops_order_without_slow_kernels():
    # b was faster somewhere, c nowhere.
    assert first("op", (12, 0), 100) == ["a", "b"]
    assert first("other", (9, 0), 100) == ["b", "c"]
    assert first("new", (12, 0), 100) == first("new", (9, 0), 100) == ["a", "b", "c"]
    assert order.exclusion_reason("op", "c", (12, 0), 100) == (
        "slower than eager where measured: 3.0 ms vs 2.0 ms (10x10, compute capability 8.9)"
    )


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Pretends that tensors are on a GPU of this compute capability, with all kernels built."""

    def pretend(*capability: int) -> None:
        monkeypatch.setattr(machine, "INTERPRETED", False)
        monkeypatch.setattr(machine, "capability_of", lambda x: capability)
        for op in OPS.values():
            for kernel in op.kernels:
                kept = [why for why in kernel.refusals if why not in NO_GPU]
                monkeypatch.setattr(kernel, "refusals", tuple(kept))

    return pretend


def sample(name: str, dtype=torch.float16):
    return OPS[name].make(OPS[name].cases[0], dtype, "cpu")


@pytest.mark.parametrize(
    ("capability", "conv", "dct", "loss"),
    [
        ((9, 0), ["triton", "cuda"], [], ["cuda"]),
        ((8, 9), ["cuda", "cuda_wgmma", "triton"], ["cuda"], None),
    ],
    ids=str,
)
def test_candidates_by_capability(on_a_gpu, capability, conv, dct, loss):
    on_a_gpu(*capability)

    def candidates(name):
        return [kernel.name for kernel in OPS[name].candidates(sample(name))]

    assert (
        candidates("conv3x3") == conv and OPS["conv3x3"].choose(sample("conv3x3")).name == conv[0]
    )
    assert candidates("dct_l1") == (loss or ["cuda", "triton"])
    # That of CUDA is none.
    assert candidates("dct2") == dct and OPS["dct2"].choose(sample("dct2")) is None
    assert OPS["dct2"].choose(sample("dct2"), "triton").name == "triton"
    assert candidates("span_gate_backward") == ["cuda", "triton"]


def test_explain_lists_kernels_that_run_only_when_named(on_a_gpu):
    on_a_gpu(9, 0)
    lines = OPS["dct2"].explain(*sample("dct2")).splitlines()
    assert lines[0].startswith("dct2: cuda: the CUDA kernel computes only dct_l1")
    assert lines[1:] == [
        "dct2: triton: runs when named, slower than eager where measured: 1.35 ms vs 0.371 ms "
        "(256x256, compute capability 9.0)",
        "dct2: eager: runs",
    ]
    lines = OPS["conv3x3"].explain(*sample("conv3x3")).splitlines()
    named = "cuda_wgmma: runs when named, not timed against eager (480x270, compute capability 9.0)"
    says = ["triton: runs", "cuda: runs", named, "eager: runs"]
    assert lines == [f"conv3x3: {line}" for line in says]


def test_compile_traces_through_the_choice(on_a_gpu, monkeypatch):
    on_a_gpu(9, 0)
    x = torch.rand(2, 8, 8)
    compiled = torch.compile(
        lambda x: OPS["dct2"](x, None, False), fullgraph=True, backend="aot_eager", dynamic=True
    )
    assert torch.equal(compiled(x), OPS["dct2"].reference(x, None, False))
    monkeypatch.setattr(order, "MILLISECONDS", {(9, 0): {"dct2": FAKE[9, 0]["op"]}})
    torch.compiler.reset()
    assert torch.equal(compiled(x), OPS["dct2"].reference(x, None, False))


def test_a_plan_takes_cuda_kernels_first(on_a_gpu):
    """Between CUDA kernels values stay in NC/8HW8 layout; timings are of single ops on images."""
    on_a_gpu(9, 0)
    made = kernels.Plan(SPAN(48, blocks=2).half().to(DEVICE))
    chosen = [
        kernel.name
        for step, kernel in zip(made.steps, made.chosen, strict=True)
        if isinstance(step, Fused)
    ]
    # The first conv has 3 input channels, and the tail more than 32.
    assert chosen == ["triton", *["cuda_wgmma"] * 4, "triton"]
    assert [made.steps[i].op.name for i in (1, 2, 3)] == ["conv3x3", "spab", "conv3x3"]
