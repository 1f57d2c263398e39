"""Bugs planted in the wgmma block: the host build detects each, by wrong values or an error."""

import re

import pytest
import torch

from espan_kernels import OPS, layout, native
from espan_kernels.spab import kernel_wgmma
from tests.support import shim as host

SOURCE = "spab_wgmma.cu"
# Two strips and several segments, so that blocks process several items.
BLOCK = (1, 32, 3, 10, 70)
ORDERS = 4
VALUES = "^wrong values$"
# The symptom depends on the thread order.
ANY = "."
DEADLOCK = "deadlock in block 0: thread .* waits for (a full|an empty) slot"
STORED = (
    "if (row.any) sink.store(sum, row);\n            wgmma_wait<0>();\n            hold(acc);\n"
)
FREED = "if (lane() == 0) mbarrier_arrive(this->empty());"
SYNCED = "fence_async();\n        warp_sync();"
# {header of csrc/wgmma: {bug: (how it shows, {text: its replacement})}}
PLANTED = {
    "convolve": {
        "planes of rows 16 bytes off": (VALUES, {"{row, PLANE}": "{row, PLANE + 16}"}),
        "halves of weights 16 bytes off": (VALUES, {"W::HALF}.": "W::HALF + 16}."}),
        "no fence before products": (
            "wgmma without wgmma_fence",
            {"wgmma_fence();": ""},
        ),
        "products in no group": (ANY, {"wgmma_commit();": ""}),
        "no wait for products": (
            "a block ended with wgmma in flight|sums of a wgmma in flight were written",
            {"wgmma_wait<0>();": ""},
        ),
        "no wait for a row": (ANY, {"in.wait();": ""}),
        "rows freed before products end": (
            VALUES,
            {"in.free();": "", STORED: "in.free();\n            " + STORED},
        ),
        "rows freed right before products end": (
            VALUES,
            {"in.free();": "", "wgmma_wait<0>();": "in.free();\n        wgmma_wait<0>();"},
        ),
        "rows never freed": (DEADLOCK, {"in.free();": ""}),
        "rows opened without the bias": (VALUES, {"bias[j / 4][j % 2]);": "0.0f);"}),
        "sums not cleared": (VALUES, {"bias[j / 4][j % 2]);": "acc[slot * SUMS + j]);"}),
        "the last row never stored": (
            ANY,
            {"    if (row.any) {\n        sink.prepare();\n        sink.store(sum, row);": "    {"},
        ),
    },
    "epilogue": {
        "gate freed before it is read": (
            VALUES,
            {
                "gate.wait();": "gate.wait(); if (!lane_id()) mbarrier_arrive(gate.empty());",
                "gate.free();": "gate.step();",
            },
        ),
        "no wait for the gate": (ANY, {"gate.wait();": ""}),
        "no wait for a hidden slot": (
            ANY,
            {"out.wait();\n        store_pairs<PLANE>": "store_pairs<PLANE>"},
        ),
        "no wait for a slot of output": (
            ANY,
            {"out.wait();\n        store_pairs<NARROW_PLANE>": "store_pairs<NARROW_PLANE>"},
        ),
        "hidden pixels outside of the image kept": (
            VALUES,
            {"row.inside[i % 2] ? pair : 0": "pair"},
        ),
    },
    "strip": {
        "more registers than there are": (
            "setmaxnreg to more registers than there are",
            {"CONVS == 3 ? 152": "CONVS == 3 ? 160"},
        ),
        "taps in the wrong order": (VALUES, {"(TAPS - done)": "(TAPS + done)"}),
        "memory for one slot less": (
            VALUES,
            {"HIDDEN = INPUT + Input::DATA_BYTES": "HIDDEN = INPUT + 3 * Input::BYTES"},
        ),
        "barriers inside of rows": (
            "written over barrier|shared byte ",
            {"LOADED = OUTPUT + Output::DATA_BYTES;": "LOADED = OUTPUT + Output::BYTES;"},
        ),
        "barriers of two rings in one place": (
            ANY,
            {"GATE_BARRIERS = INPUT_BARRIERS +": "GATE_BARRIERS = INPUT_BARRIERS - 8 +"},
        ),
    },
    "ring": {
        "no fence after stores": (VALUES, {SYNCED: "warp_sync();"}),
        "a fence by the lane that arrives": (
            VALUES,
            {SYNCED: "warp_sync();\n        if (lane_id() == 0) fence_async();"},
        ),
        "published before all lanes have stored": (VALUES, {SYNCED: "fence_async();"}),
        "writers a phase late": (DEADLOCK, {"{ring, 0, 1}": "{ring, 0, 0}"}),
        "readers a phase early": (ANY, {"{ring, 0, 0}": "{ring, 0, 1}"}),
        "phases that do not change": (ANY, {"parity ^= 1;": ""}),
        "readers turn a slot early": (
            ANY,
            {FREED: f"{FREED}\n        if (this->slot == Ring::SLOTS - 2) this->step();"},
        ),
        "slots freed by two lanes": (ANY, {FREED: FREED.replace("== 0", "< 2")}),
    },
    "copies": {
        "barriers not shown to bulk copies": (
            "a bulk copy, without mbarrier_fence_init",
            {"mbarrier_fence_init();": ""},
        ),
        "bytes of a plane not expected": (ANY, {"PLANES * bytes)": "(PLANES - 1) * bytes)"}),
        "bytes expected that do not come": (DEADLOCK, {"PLANES * bytes)": "PLANES * bytes + 16)"}),
        "zeros without a fence": (VALUES, {"fence_async();": ""}),
        "zeros in a single slot": (VALUES, {"reach + Ring::SLOTS": "reach + 1"}),
        "no zeros right of the image": (
            VALUES,
            {"zero<PLANES, PITCH>(row, end, PITCH / PIXEL);": ""},
        ),
        "no wait for bulk stores": (
            "a block ended before its bulk copies had read shared memory",
            {"bulk_wait_read<0>();": ""},
        ),
        "one bulk store too few waited for": (
            "a block ended before its bulk copies had read shared memory",
            {"bulk_wait_read<0>();": "bulk_wait_read<1>();"},
        ),
        "rows stored past their end": (
            ANY,
            {"min(useful, maps.cut.width - left) * PIXEL": "useful * PIXEL"},
        ),
        "output not waited for": (ANY, {"reader.wait();": ""}),
    },
    "rows": {
        "no wait for weights": (
            VALUES,
            {'wait_past(rings.start + S::LOADED, 0, "the weights");': ""},
        ),
        "barriers used before they are there": (
            "barrier .* is not initialised",
            {"bar_sync(0, S::THREADS);": ""},
        ),
        "registers of one warp": (
            "setmaxnreg of part of a warpgroup",
            {"take_registers<": "if (threadIdx.x < 32) take_registers<"},
        ),
        "global memory too early": (
            "global memory before wait_for_earlier_kernels",
            {"wait_for_earlier_kernels();": ""},
        ),
        "a ring that one warp frees": (
            ANY,
            {"input().init(1, WARPGROUP_WARPS)": "input().init(1, 1)"},
        ),
    },
    "launch": {
        "too little shared memory": (
            "dynamic shared memory, byte",
            {"S::THREADS, S::BYTES,": "S::THREADS, S::BYTES - 16,"},
        ),
    },
}
BUGS = [
    pytest.param(header, *planted, id=bug)
    for header, bugs in PLANTED.items()
    for bug, planted in bugs.items()
]


def caught(module) -> str | None:
    """How a run of the block reveals a bug under one of a few thread orders, or None."""
    x, weights, biases = OPS["spab"].make(BLOCK, torch.float16, "cpu")
    truth = OPS["spab"].reference(x, weights, biases)
    planes, packed = layout.to_nc8hw8(x), kernel_wgmma.pack(weights, biases)
    for seed in range(ORDERS):
        module.seed(seed)
        out = torch.full_like(planes, float("nan"))
        try:
            kernel_wgmma.launch(planes, packed, out, overlap=True)
        except native.CudaError as error:
            return str(error)
        if not torch.allclose(layout.from_nc8hw8(out, BLOCK[1]), truth, atol=0.03, rtol=0.01):
            return "wrong values"
    return None


def test_shim_no_false_positives(use_module, shim_module):
    use_module(shim_module)
    assert caught(shim_module) is None


@pytest.mark.parametrize(("header", "how", "change"), BUGS)
def test_shim_finds_planted_bugs(use_module, shim_objects, tmp_path, header, how, change):
    module = host.patched(shim_objects, tmp_path, SOURCE, change, f"wgmma/{header}.cuh")
    use_module(module)
    shown = caught(module)
    assert shown is not None and re.search(how, shown), shown
