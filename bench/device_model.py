"""How long a kernel takes on a GPU, computed from counts: its warps and what they wait for.

A multiprocessor has four schedulers. A warp does one thing after another: products, other
instructions, special functions, memory it waits for. It has a unit to itself only while no other
warp is there: R, its time at a unit, is its work D times 1 + the number of others it meets, and
another warp is met with probability R / T, if T is the time of a step (mean value analysis of
a closed queueing network). Roles that hand rows to each other take equally many steps, so T is the
slowest role's. No number belongs to one kernel alone: kernels differ by their counts
(kernel_counts.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, inf

MMA_FLOP = 2 * 16 * 8 * 16  # of an mma.m16n8k16
WGMMA_FLOP = 2 * 64 * 16  # of a wgmma.m64n1k16
SCHEDULERS = 4


@dataclass(frozen=True)
class Device:
    """A GPU. Where the numbers of H100 come from: docs/performance.md, "The model"."""

    processors: int
    clock: float  # cycles a second, while these kernels run
    mma: float  # FLOP/s of mma.sync, registers only
    wgmma: dict[int, float]  # the same of wgmma.m64nNk16, by N
    latency: float  # cycles from the last product of a group of wgmma to its sums
    special: float  # cycles of a special function unit for a warp
    gap: float  # cycles from an instruction of a warp to its next one
    trip: float  # cycles from a load to what L2 holds
    handoff: float  # cycles from a warp that arrives at a barrier to one that goes on
    launch: float  # seconds of a kernel before its first step and after its last
    bandwidth: float  # bytes a second of device memory, read and written
    l2: float  # bytes a second from L2

    def mma_cycles(self) -> float:
        """Of a scheduler's tensor core for an mma.m16n8k16."""
        return self._cycles(MMA_FLOP, self.mma)

    def wgmma_cycles(self, n: int) -> float:
        """Of the four tensor cores for a wgmma.m64nNk16; between sizes that were measured the rate
        is interpolated."""
        sizes = sorted(self.wgmma)
        below = max(size for size in sizes if size <= n)
        above = min((size for size in sizes if size >= n), default=below)
        part = (n - below) / (above - below) if above > below else 0
        rate = self.wgmma[below] * (1 - part) + self.wgmma[above] * part
        return self._cycles(n * WGMMA_FLOP, rate) / SCHEDULERS

    def _cycles(self, flop: float, rate: float) -> float:
        return flop * SCHEDULERS * self.processors * self.clock / rate


H100 = Device(
    processors=132,
    clock=1.755e9,
    mma=650e12,
    wgmma={32: 590e12, 64: 768e12, 96: 823e12, 192: 852e12, 256: 832e12},
    latency=72,
    special=8,
    gap=2.4,
    trip=290,
    handoff=60,
    launch=3e-6,
    bandwidth=2.38e12,
    l2=5.5e12,
)
# The same chip with faster memory; none was measured.
H200 = replace(H100, bandwidth=4.3e12)


@dataclass(frozen=True)
class Role:
    """What a warp does in one step, counted."""

    mma: float = 0  # mma.m16n8k16
    wgmma: tuple[int, ...] = ()  # N of each wgmma.m64nNk16 that its warpgroup waits for
    instructions: float = 0  # without these and without special functions
    special: float = 0  # instructions of special functions
    wavefronts: float = 0  # of 128 bytes, from or to shared memory and L1
    trips: float = 0  # loads that it waits for from L2, one after another
    handoffs: float = 0  # barriers that it waits at
    ahead: bool = False  # its products run while it does the rest, of the step before
    beyond: int = 0  # rows that it computes beside those of its segment

    def work(self, device: Device) -> dict[str, float]:
        """Cycles at each unit."""
        products = self.mma * device.mma_cycles() + sum(map(device.wgmma_cycles, self.wgmma))
        return {
            "tensor": products,
            "issue": self.instructions + self.special,
            "special": self.special * device.special,
        }

    def alone(self, device: Device) -> float:
        """Cycles in which it waits for no unit, beside its products."""
        return (
            self.instructions * (device.gap - 1)
            + self.trips * device.trip
            + self.handoffs * device.handoff
        )


# How many warps of each role are on a scheduler.
Mix = tuple[int, ...]


def step(
    roles: Sequence[Role], mix: Mix, device: Device, together: bool = True
) -> tuple[float, list[float]]:
    """Cycles of a step, and those of each role's own.

    together: warps of one role leave the same barrier, so they always meet.
    """
    work = [role.work(device) for role in roles]
    at = [dict(one) for one in work]
    whole, own = 1e4, []
    for _ in range(100):
        at = [_contended(i, work, at, mix, whole, together) for i in range(len(roles))]
        own = [_serial(role, one, device) for role, one in zip(roles, at, strict=True)]
        slowest = max(t for t, count in zip(own, mix, strict=True) if count)
        whole = (whole + max(slowest, _busiest(roles, work, mix))) / 2
    return whole, own


def _contended(i, work, at, mix, whole, together) -> dict[str, float]:
    found = {}
    for unit, cycles in work[i].items():
        here = [one[unit] / whole for one in at]
        others = sum(n * part for n, part in zip(mix, here, strict=True)) - here[i]
        if together and mix[i] > 1:
            others += (mix[i] - 1) * (1 - here[i])
        found[unit] = cycles * (1 + max(others, 0))
    return found


def _serial(role: Role, at: dict[str, float], device: Device) -> float:
    products = at["tensor"] + (device.latency if role.wgmma else 0)
    rest = sum(at.values()) - at["tensor"] + role.alone(device)
    return max(products, rest) if role.ahead else products + rest


def _busiest(roles: Sequence[Role], work, mix: Mix) -> float:
    """Cycles of the unit that works most. Loads run ahead of what uses them, so shared memory, one
    for all schedulers, is a limit and no wait."""
    shared = SCHEDULERS * sum(n * role.wavefronts for n, role in zip(mix, roles, strict=True))
    units = [sum(n * one[unit] for n, one in zip(mix, work, strict=True)) for unit in work[0]]
    return max(shared, *units)


@dataclass(frozen=True)
class Phase:
    """Equal steps of all resident warps, with the bytes moved meanwhile."""

    roles: tuple[Role, ...]
    mixes: tuple[Mix, ...]  # of the schedulers that differ; the slowest counts
    steps: float
    dram: float = 0
    l2: float = 0
    together: bool = False

    def seconds(self, device: Device) -> float:
        cycles = max(step(self.roles, mix, device, self.together)[0] for mix in self.mixes)
        computed = self.steps * cycles / device.clock
        return max(computed, self.dram / device.bandwidth, self.l2 / device.l2)


@dataclass(frozen=True)
class Rows:
    """A kernel that walks down strips of a picture, row by row (csrc/common/rows.cuh)."""

    roles: tuple[Role, ...]  # in the order in which they hand rows on
    mixes: tuple[Mix, ...]
    columns: int  # of a strip that are stored
    bytes: float  # of device memory, a pixel
    reach: int  # rows computed above a segment, and as many below
    walkers: int = 1  # that take items of their own, on a multiprocessor
    together: bool = True

    def seconds(self, device: Device, width: int, height: int) -> float:
        strips = ceil(width / self.columns)
        walkers = device.processors * self.walkers
        segment = ceil(height / segments(strips, height, self.reach, walkers))
        turns = ceil(strips * ceil(height / segment) / walkers)
        cycles = max(self._cycles(mix, segment, turns, device) for mix in self.mixes)
        memory = self.bytes * width * height / device.bandwidth
        return device.launch + max(cycles / device.clock, memory)

    def _cycles(self, mix: Mix, segment: int, turns: int, device: Device) -> float:
        whole, own = step(self.roles, mix, device, self.together)
        # A row reaches the next role when the rows that it needs are there; those that follow do
        # nothing yet.
        fill = sum(
            _serial(role, role.work(device), device) * (role.beyond - following.beyond + 1)
            for role, following in pairwise(self.roles)
        )
        slowest = max(
            max(cycles, whole if cycles == max(own) else 0) * (segment + role.beyond)
            for cycles, role in zip(own, self.roles, strict=True)
        )
        return fill + turns * slowest


def segments(strips: int, height: int, reach: int, walkers: int) -> int:
    """Into how many the height is cut, as count_segments in csrc/common/cut.cuh does."""
    best, least = 1, inf
    for count in range(1, height + 1):
        if (count - 1) * strips >= 2 * walkers:
            break
        rows = ceil(strips * count / walkers) * (ceil(height / count) + 2 * reach)
        if rows < least:
            best, least = count, rows
    return best
