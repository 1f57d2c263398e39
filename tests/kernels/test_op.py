"""The op mechanism: order, refusal messages, forced implementations, cost of a call."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import espan_kernels
from espan_kernels import OPS, conv3x3, dct2, machine, op, span_gate
from espan_kernels.op import Op
from tests.support.contract import DEVICE

pytestmark = pytest.mark.usefixtures("kernel_device")


def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def launcher(x: torch.Tensor) -> torch.Tensor:
    launcher.calls += 1
    return 2 * x


@pytest.fixture
def twice(monkeypatch):
    """An op of two kernels: "cuda" refuses shapes of one dimension, "triton" refuses nothing."""
    monkeypatch.setattr(machine, "INTERPRETED", False)
    launcher.calls = 0
    twice = Op("twice", double, [(3,)], lambda case, dtype, device="cpu": (torch.ones(case),))
    here = f"{__name__}:launcher"
    twice.kernel("cuda", here, lambda x: "one dimension" if x.dim() == 1 else None)
    twice.kernel("triton", here)
    yield twice
    del OPS["twice"]


def test_first_kernel_that_does_not_refuse_runs(twice):
    flat, square = torch.ones(3), torch.ones(3, 3)
    assert twice.choose((square,)).name == "cuda"
    assert twice.choose((flat,)).name == "triton"
    assert twice.choose((square,), "triton").name == "triton"
    assert twice.choose((square,), "eager") is None
    assert torch.equal(twice(flat), 2 * flat) and launcher.calls == 1


def test_a_forced_implementation_never_falls_back(twice):
    with pytest.raises(ValueError, match=r"^twice: impl='cuda' refuses: one dimension$"):
        twice(torch.ones(3), impl="cuda")
    assert launcher.calls == 0


def test_unknown_implementation(twice):
    with pytest.raises(
        ValueError, match=r"^twice: impl: expected None, 'cuda', 'triton' or 'eager', got 'fast'$"
    ):
        twice(torch.ones(3), impl="fast")


def test_explain_names_each_refusal(twice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert twice.explain(torch.ones(3)).splitlines() == [
        "twice: cuda: one dimension",
        "twice: triton: runs",
        "twice: eager: runs",
    ]
    text = espan_kernels.explain()
    assert f"torch {torch.__version__}" in text
    assert "conv9x9_head: cuda: " in text and "conv9x9_head: eager: runs" in text
    assert "dct_l1: eager: runs" in text


def test_every_op_refuses_cuda_on_the_cpu_with_a_reason():
    for each in OPS.values():
        args = each.make(each.cases[0], torch.float32, "cpu")
        with pytest.raises(
            ValueError, match=f"^{each.name}: impl='cuda' refuses: .*CUDA kernels? "
        ):
            each(*args, impl="cuda")


def test_without_triton(monkeypatch):
    monkeypatch.setattr(machine, "HAS_TRITON", False)
    with pytest.raises(ValueError, match="impl='triton' refuses: Triton is not installed"):
        span_gate(torch.ones(2), torch.ones(2), impl="triton")
    assert "triton: not installed" in espan_kernels.explain("cpu")


def test_an_old_triton_is_refused(monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(machine, "INTERPRETED", True)  # as if it could run on these tensors
    monkeypatch.setattr(triton, "__version__", "3.3.1")
    x = torch.ones(2, device="cpu")
    with pytest.raises(ValueError, match=r"needs Triton 3\.4 or later, found 3\.3\.1"):
        span_gate(x, x, impl="triton")
    monkeypatch.setattr(triton, "__version__", "3.10.0+git1234")
    assert machine.no_triton() is None


def test_on_the_cpu_without_the_interpreter(monkeypatch):
    monkeypatch.setattr(machine, "INTERPRETED", False)
    x = torch.ones(2, device="cpu")
    with pytest.raises(ValueError, match="need a CUDA device, the tensors are on cpu"):
        span_gate(x, x, impl="triton")
    assert torch.equal(span_gate(x, x), span_gate(x, x, impl="eager"))


def test_an_old_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(machine, "INTERPRETED", False)
    monkeypatch.setattr(machine, "capability", lambda index: (7, 5))
    tensor = type("FakeCuda", (torch.Tensor,), {"device": torch.device("cuda", 1)})()
    reason = machine.needs_triton(tensor)
    assert reason == "needs compute capability 8.0 or higher, cuda:1 has 7.5"


def test_interpreter_runs_only_when_named(monkeypatch):
    monkeypatch.setattr(machine, "INTERPRETED", True)
    assert OPS["span_gate"].choose((torch.ones(2), torch.ones(2))) is None


def run(code: str, **environment) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return result.stdout + result.stderr


def test_espan_impl_is_the_default_and_never_falls_back():
    code = (
        "import torch, espan_kernels as k; x = torch.ones(2); print(k.explain('cpu'));"
        "print(k.span_gate(x, x, impl='eager').shape); k.span_gate(x, x)"
    )
    out = run(code, ESPAN_IMPL="cuda")
    assert "ESPAN_IMPL=cuda: calls without impl use this one" in out
    assert "torch.Size([2])" in out
    assert "ValueError: span_gate: impl='cuda' refuses: CUDA kernels " in out


def test_importing_the_ops_does_not_import_triton():
    out = run(
        "import sys, torch; before = set(sys.modules); import espan_kernels;"
        "print('triton' in set(sys.modules) - before)"
    )
    assert out.strip() == "False"


class EveryOp(torch.nn.Module):
    """Each op once, the way a network calls them."""

    def forward(self, x, weight, bias):
        x = conv3x3(x, weight, bias, act="silu")
        return dct2(span_gate(x, x), block=8)


def test_export_and_fullgraph():
    x, weight, bias, *_ = OPS["conv3x3"].make((1, 4, 4, 16, 8, "none"), torch.float32, DEVICE)
    net = EveryOp()
    exported = torch.export.export(net, (x, weight, bias)).module()
    assert torch.equal(exported(x, weight, bias), net(x, weight, bias))
    explained = torch._dynamo.explain(net)(x, weight, bias)
    assert explained.graph_break_count == 0


def calls_in(function) -> int:
    """Functions of Python and C that `function` enters: its cost on any machine."""
    entered = 0

    def count(frame, event, arg):
        nonlocal entered
        entered += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return entered


ONE = torch.ones(1, 1, 8, 8, device="cpu")
WEIGHT, BIAS = ONE[:, :, :3, :3], torch.ones(1, device="cpu")
CALLS = {
    "span_gate": lambda: span_gate(ONE, ONE),
    "conv3x3": lambda: conv3x3(ONE, WEIGHT, BIAS, gate=ONE),
    "dct2": lambda: dct2(ONE),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_enters_at_most_50_functions(name, monkeypatch):
    """Counted, because a time depends on the machine: 44 take 9 us on a Xeon of 2023."""
    monkeypatch.setattr(machine, "INTERPRETED", False)
    monkeypatch.setattr(OPS[name], "reference", lambda *args: None)  # the call without its work
    with torch.no_grad():
        CALLS[name]()
        assert 0 < calls_in(CALLS[name]) <= 50


def test_op_names_are_listed():
    assert {"span_gate", "conv3x3", "conv9x9_head", "tail", "spab", "dct2", "dct_l1"} <= set(OPS)
    assert op.OPS is OPS


def test_every_kernel_has_a_contract_test():
    """Every kernel is tested with guard bands around inputs and outputs, strides and sizes."""
    call = re.compile(r'contract\(\s*"(\w+)"((?:[^()]|\([^()]*\))*)\)')
    tested = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for name, options in call.findall(path.read_text()):
            impl = re.search(r'impl="(\w+)"', options)
            tested.add((name, impl[1] if impl else "triton"))
    assert tested == {(op.name, k.name) for op in OPS.values() for k in op.kernels if k.run}
