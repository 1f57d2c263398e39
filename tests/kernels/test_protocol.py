"""A model of the row hand-off in wgmma blocks and tails: no order of steps deadlocks."""

import re
from itertools import product

import pytest

from espan_kernels.build_info import SOURCES
from tests.support.protocol import (
    Model,
    ProtocolError,
    Reader,
    Ring,
    Step,
    Writer,
    bulk_copies,
    run,
    search,
)

RINGS = ("Input", "Hidden", "Gate", "Output")
TAIL_RINGS = ("Input", "Single", "Hidden")


def rows_of(items: list[int], reach: int) -> list[tuple[int, int]]:
    """(item, row) of all rows of the items, with `reach` more above and below."""
    return [(k, y) for k, rows in enumerate(items) for y in range(-reach, rows + reach)]


def convolution(
    source: Ring, target: Ring | None, gate: Ring | None, reach, warp, items, extra=()
) -> list[Step]:
    """A warp's steps in csrc/wgmma/convolve.cuh. While a row's products are computed, the
    previously finished row is stored, in `target` if that is a ring.

    extra: rings read once per finished row, such as the tail's 1x1 inputs.
    """
    steps: list[Step] = []
    reader, others = Reader(steps, source), [Reader(steps, ring) for ring in extra]
    before = Reader(steps, gate) if gate else None
    writer = Writer(steps, target, warp) if target else None
    finished: tuple[int, int] | None = None

    def pass_on(row, *ends):
        for end in ends:
            if row and end:
                end.begin(row)
                end.end()

    for k, y in rows_of(items, reach):
        reader.begin((k, y))
        # The first two rows of an item finish none of its own.
        next_finished = (k, y - 1) if y >= 2 - reach else None
        pass_on(next_finished, *others)
        pass_on(finished, before, writer)
        reader.end()
        finished = next_finished
    pass_on(finished, before, writer)
    return steps


def block(sizes: tuple[int, ...], convs: int, items: list[int], warps: int = 2) -> dict:
    """The roles of a block; `sizes` has the number of slots of each ring, in the order of RINGS."""
    slots = dict(zip(RINGS, sizes, strict=True))
    first, gate = (Ring(name, slots[name], 1, warps) for name in ("Input", "Gate"))
    rings = [first, *(Ring(f"Hidden {i}", slots["Hidden"], warps, warps) for i in range(convs - 1))]
    rings.append(Ring("Output", slots["Output"], warps, 1))
    roles = bulk_copies("input", first, rows_of(items, convs))
    roles |= bulk_copies("gate", gate, rows_of(items, 0))
    for conv, warp in product(range(convs), range(warps)):
        of_gate = gate if conv == convs - 1 else None
        roles[f"convolution {conv}, warp {warp}"] = convolution(
            rings[conv], rings[conv + 1], of_gate, convs - conv, warp, items
        )
    stored: list[Step] = []
    storer = Reader(stored, rings[-1])
    for row in rows_of(items, 0):
        storer.begin(row)
        storer.end()
    return roles | {"output": stored}


def tail(sizes: tuple[int, ...], singles: int, items: list[int], warps: int = 2) -> dict:
    """The roles of a tail: sums of a 3x3 and 1x1 convolutions, then a convolution to pixels."""
    slots = dict(zip(TAIL_RINGS, sizes, strict=True))
    x = Ring("Input", slots["Input"], 1, warps)
    ones = [Ring(f"Single {i}", slots["Single"], 1, warps) for i in range(singles)]
    hidden = Ring("Hidden", slots["Hidden"], warps, warps)
    roles = bulk_copies("input", x, rows_of(items, 2))
    for one in ones:
        roles |= bulk_copies(one.name, one, rows_of(items, 1))
    for warp in range(warps):
        roles[f"sums, warp {warp}"] = convolution(x, hidden, None, 2, warp, items, ones)
        roles[f"pixels, warp {warp}"] = convolution(hidden, None, None, 1, warp, items)
    return roles


def slots_of(source: str, names: tuple[str, ...], convs: int = 0) -> tuple[int, ...]:
    """The number of slots of the rings in csrc/`source`."""
    found = re.findall(
        r"using (\w+) = Ring<(?:CONVS == 1 \? (\d+) : )?(\d+),", (SOURCES / source).read_text()
    )
    sizes = {name: int(alone if alone and convs == 1 else usual) for name, alone, usual in found}
    return tuple(sizes[name] for name in names)


def real_sizes(convs: int) -> tuple[int, ...]:
    return slots_of("wgmma/strip.cuh", RINGS, convs)


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_the_real_rings_are_among_those_searched(convs):
    assert all(size in range(1, 5) for size in real_sizes(convs))


@pytest.mark.parametrize("convs", [1, 2, 3])
@pytest.mark.parametrize("items", [[1], [5], [1, 4, 2], [2, 2, 2, 2]], ids=str)
def test_the_real_rings_in_many_orders(convs, items):
    model = Model(block(real_sizes(convs), convs, items, warps=4))
    for seed in range(5):
        run(model, seed)


@pytest.mark.parametrize("size", range(1, 5))
def test_rings_of_any_size_in_some_orders(size):
    for sizes in product([size], *[range(1, 5)] * 3):
        for convs in (1, 2, 3):
            run(Model(block(sizes, convs, [1, 3])), seed=sum(sizes))


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_every_order_of_small_rings(convs):
    for sizes in product((1, 2), repeat=4):
        assert search(Model(block(sizes, convs, [2, 1][: 4 - convs], warps=1))) > 100


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_every_order_of_the_real_rings(convs):
    assert search(Model(block(real_sizes(convs), convs, [2], warps=1))) > 100


@pytest.mark.parametrize("convs", [1, 2])
def test_every_order_of_two_warps(convs):
    assert search(Model(block((2, 2, 1, 2), convs, [2], warps=2))) > 100


@pytest.mark.parametrize("singles", [2, 3])
def test_tails(singles):
    sizes = slots_of("tail_wgmma.cu", TAIL_RINGS)
    assert all(size in range(1, 5) for size in sizes)
    for seed in range(5):
        run(Model(tail(sizes, singles, [1, 4, 2], warps=4)), seed)
    for some in product(range(1, 5), repeat=3):
        run(Model(tail(some, singles, [1, 3])), seed=sum(some))
    for small in product((1, 2), repeat=3):
        assert search(Model(tail(small, singles, [1], warps=1))) > 100


def edited(role: str, change) -> dict:
    """A block with modified steps of one role."""
    roles = block((2, 2, 2, 1), 2, [2, 1], warps=2)
    return {**roles, role: [new for i, step in enumerate(roles[role]) for new in change(i, step)]}


def late(kind: str, ring: str):
    """Makes a role wait for the next or previous phase instead of the right one."""

    def change(i, step):
        wrong = step.kind == kind and step.ring.name == ring
        return [step._replace(parity=1 - step.parity) if wrong else step]

    return change


def without(kind: str, ring: str):
    return lambda i, step: [step] * ((step.kind, step.ring.name) != (kind, ring))


def twice(kind: str, ring: str):
    return lambda i, step: [step] * (1 + ((step.kind, step.ring.name) == (kind, ring)))


LAST, FIRST = "convolution 1, warp 0", "convolution 0, warp 1"


@pytest.mark.parametrize(
    ("role", "change"),
    [
        pytest.param(LAST, twice("end to read", "Hidden 0"), id="a reader frees twice"),
        pytest.param(LAST, without("end to read", "Gate"), id="a reader never frees"),
        pytest.param(FIRST, late("begin to write", "Hidden 0"), id="a writer of another phase"),
        pytest.param(LAST, late("begin to read", "Hidden 0"), id="a reader of another phase"),
        pytest.param("input", late("begin to write", "Input"), id="a loader of another phase"),
        pytest.param("output", late("begin to read", "Output"), id="a storer of another phase"),
        pytest.param(FIRST, twice("end to write", "Hidden 0"), id="a writer publishes twice"),
        pytest.param(
            FIRST, lambda i, step: [step] * (i < 12), id="a convolution that ends too early"
        ),
        pytest.param(
            "gate", lambda i, step: [step] * (step.number < 2), id="a row of the gate not loaded"
        ),
    ],
)
def test_planted_faults_are_found(role, change):
    model = Model(edited(role, change))
    with pytest.raises(ProtocolError):
        for seed in range(20):
            run(model, seed)


def test_loader_that_does_not_wait_is_found():
    roles = block((2, 2, 2, 1), 2, [2, 1])
    unchecked = [step._replace(kind="end to write") for step in roles["input"]]
    with pytest.raises(ProtocolError, match=r"too many arrivals|begin to read"):
        search(Model({**roles, "input": unchecked}))


def test_a_reader_that_keeps_two_rows_needs_two_slots():
    def model(slots: int) -> Model:
        ring, rows = Ring("Input", slots, 1, 1), rows_of([4], 0)
        roles = bulk_copies("input", ring, rows)
        steps: list[Step] = []
        reader = Reader(steps, ring)
        for row in rows:
            reader.begin(row)
            reader.end()
        begins, ends = steps[::2], steps[1::2]
        kept = [step for pair in zip(begins[1:], ends, strict=False) for step in pair]
        return Model({**roles, "two rows": [begins[0], *kept, ends[-1]]})

    with pytest.raises(ProtocolError, match=r"^deadlock: input at begin to write Input \(0, 1\)"):
        search(model(1))
    assert search(model(2)) > 10
