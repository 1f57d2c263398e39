"""The model of kernel times agrees with the measurements."""

from dataclasses import replace

import pytest

from bench import device_model, kernel_counts, predict, schema
from bench.device_model import H100, H200, Phase, Role, Rows, step

CONTENT = schema.check(predict.MEASUREMENTS)
ROWS = schema.check(predict.RECORD)["rows"]
COMPARED = predict.compared(CONTENT, ROWS)
NAMES = [f"{what}, {size}" for what, size, *_ in COMPARED]


@pytest.mark.parametrize(("what", "size", "computed", "measured"), COMPARED, ids=NAMES)
def test_model_agrees_with_measurements(what, size, computed, measured):
    assert computed == pytest.approx(measured, rel=0.15)


def test_all_measurements_are_compared():
    measured = [one for one in CONTENT["measurements"] if one["group"] in ("kernels", "prototype")]
    # The result check is not one of the modelled kernels.
    assert len(COMPARED) == len(measured) - 1 + 4 + 1
    assert {what for what, *_ in COMPARED} >= {*kernel_counts.MMA_SYNC, predict.LOSS_OP}


def test_model_error_is_small_overall():
    ratios = [computed / measured for *_, computed, measured in COMPARED]
    assert sum(abs(ratio - 1) for ratio in ratios) / len(ratios) < 0.05


def test_rates_and_waits_match_the_measurements():
    def values(group: str, what: str) -> list[float]:
        found = CONTENT["measurements"]
        return [m["value"] for m in found if m["group"] == group and m["what"].startswith(what)]

    def mean(what: str) -> float:
        found = values("waits", what)
        assert len(found) == 4
        return sum(found) / 4

    assert H100.clock == pytest.approx(1e9 * mean("clock while"), rel=0.01)
    assert H100.gap == pytest.approx(mean("cycles of a warp between two"), rel=0.03)
    assert H100.trip == pytest.approx(mean("cycles that a warp waits for a load"), rel=0.01)
    assert H100.mma == pytest.approx(1e12 * max(values("rates", "mma.sync")), rel=0.01)
    for n in (32, 64, 96, 192):
        (rate,) = values("rates", f"wgmma n{n}, A and B in shared memory, 3 warpgroups")
        assert H100.wgmma[n] == pytest.approx(1e12 * rate, rel=0.01)
    # A single warpgroup that waits after every six products.
    (alone,) = values("rates", "wgmma n96, A and B in shared memory, 1 warpgroup")
    cycles = 6 * H100.wgmma_cycles(96)
    assert cycles / (cycles + H100.latency) == pytest.approx(
        alone * 1e12 / H100.wgmma[96], rel=0.02
    )
    record = schema.check(predict.RECORD)
    assert H100.bandwidth == pytest.approx(record["limits"]["copy"], rel=0.01)


def test_single_warp_does_not_wait():
    role = Role(mma=10, instructions=20, special=3, trips=1, handoffs=2)
    expected = (
        10 * H100.mma_cycles() + 20 * H100.gap + 3 * (1 + H100.special) + H100.trip
        + 2 * H100.handoff
    )  # fmt: skip
    whole, own = step([role], (1,), H100)
    assert whole == pytest.approx(expected) == pytest.approx(own[0])


def test_warps_share_units():
    busy, idle = Role(mma=100), Role(trips=100)
    alone = step([busy], (1,), H100)[0]
    assert step([busy], (4,), H100)[0] == pytest.approx(4 * alone)
    # A warp without contention takes its own time; a warp that only waits for memory causes none.
    assert step([idle], (4,), H100)[0] == pytest.approx(100 * H100.trip)
    both, own = step([busy, idle], (1, 1), H100)
    assert own[0] == pytest.approx(alone) and both == pytest.approx(own[1])
    shared = Role(wavefronts=1000)
    assert step([shared], (2,), H100)[0] == pytest.approx(8000)


def test_products_ahead_hide_the_rest():
    after = Role(wgmma=(96,) * 6, instructions=100)
    ahead = replace(after, ahead=True)
    products = 6 * H100.wgmma_cycles(96) + H100.latency
    assert step([ahead], (1,), H100)[0] == pytest.approx(products)
    assert step([after], (1,), H100)[0] == pytest.approx(products + 100 * H100.gap)


def test_rates_between_sizes_are_interpolated():
    assert H100.wgmma_cycles(96) < H100.wgmma_cycles(144) < H100.wgmma_cycles(192)
    assert H100.wgmma_cycles(96) == pytest.approx(55.3, rel=0.01)


def test_memory_is_a_limit():
    phase = Phase((Role(instructions=1),), ((1,),), 1, dram=1e9, l2=1e9)
    assert phase.seconds(H100) == pytest.approx(1e9 / H100.bandwidth)
    fast = replace(H100, bandwidth=1e15)
    assert phase.seconds(fast) == pytest.approx(1e9 / H100.l2)
    rows = Rows((Role(instructions=1),), ((1,),), columns=64, bytes=1000, reach=0)
    image = 1000 * 960 * 540 / H200.bandwidth
    assert rows.seconds(H200, 960, 540) == pytest.approx(image + H200.launch)


def test_images_are_divided_as_in_the_kernels():
    # 16 strips of 60 columns and 8 segments: the 128 items of docs/cuda.md.
    assert device_model.segments(16, 540, 3, 132) == 8
    # One item of 68 rows and 6 more.
    role = Role(instructions=1000, beyond=6)
    rows = Rows((role,), ((1,),), columns=60, bytes=0, reach=3)
    cycles = (rows.seconds(H100, 960, 540) - H100.launch) * H100.clock
    assert cycles == pytest.approx(74 * 1000 * H100.gap)


def test_predictions_cover_every_size():
    head, lines = predict.predicted()
    assert {len(line) for line in lines} == {len(head)}
    assert {line[0] for line in lines} >= {*kernel_counts.WGMMA}


def test_predict_prints_what_it_computes(capsys):
    predict.main()
    said = capsys.readouterr().out
    assert "model / measured" in said and "wgmma, H200" in said
