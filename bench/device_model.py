"""Predicts the run time of a kernel on a GPU from the operation counts and waits of its warps.

A multiprocessor has four schedulers. A warp executes sequentially: products, other instructions,
special functions, memory waits. It shares each unit with other warps: R, its time at a unit, is its
work D times 1 + the expected number of other warps there, and each other warp is there with
probability R / T, where T is the time of a step (mean value analysis of a closed queueing network).
Roles that pass rows to each other take the same number of steps, so the slowest role determines T.
There are no per-kernel parameters: kernels differ only by their counts (kernel_counts.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, inf

MMA_FLOP = 2 * 16 * 8 * 16  # per mma.m16n8k16
WGMMA_FLOP = 2 * 64 * 16  # per wgmma.m64n1k16
SCHEDULERS = 4


@dataclass(frozen=True)
class Device:
    """A GPU. docs/performance.md, "The model", gives the sources of the H100 numbers."""

    processors: int
    clock: float  # cycles per second while these kernels run
    mma: float  # FLOP/s of mma.sync with register operands
    wgmma: dict[int, float]  # FLOP/s of wgmma.m64nNk16, by N
    latency: float  # cycles from the last wgmma of a group until its sums are available
    special: float  # cycles of the special function unit per warp instruction
    gap: float  # cycles between consecutive instructions of a warp
    trip: float  # cycles of a load that hits in L2
    handoff: float  # cycles from a warp's arrival at a barrier until another warp continues
    launch: float  # seconds of a kernel before its first step and after its last
    bandwidth: float  # bytes per second of device memory, reads plus writes
    l2: float  # bytes per second from L2

    def mma_cycles(self) -> float:
        """Cycles of a scheduler's tensor core per mma.m16n8k16."""
        return self._cycles(MMA_FLOP, self.mma)

    def wgmma_cycles(self, n: int) -> float:
        """Cycles of the four tensor cores per wgmma.m64nNk16; interpolates the rate between
        measured sizes.
        """
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
# The same chip with faster memory; not measured.
H200 = replace(H100, bandwidth=4.3e12)


@dataclass(frozen=True)
class Role:
    """Counts of a warp's work in one step."""

    mma: float = 0  # number of mma.m16n8k16
    wgmma: tuple[int, ...] = ()  # N of each wgmma.m64nNk16 that its warpgroup waits for
    instructions: float = 0  # other than mma, wgmma and special functions
    special: float = 0  # special function instructions
    wavefronts: float = 0  # of 128 bytes, from or to shared memory and L1
    trips: float = 0  # sequential waits for loads from L2
    handoffs: float = 0  # waits at barriers
    ahead: bool = False  # its products overlap with the other work of the previous step
    beyond: int = 0  # rows computed in addition to its segment

    def work(self, device: Device) -> dict[str, float]:
        """Cycles of work at each unit."""
        products = self.mma * device.mma_cycles() + sum(map(device.wgmma_cycles, self.wgmma))
        return {
            "tensor": products,
            "issue": self.instructions + self.special,
            "special": self.special * device.special,
        }

    def alone(self, device: Device) -> float:
        """Cycles spent at no shared unit, excluding products."""
        return (
            self.instructions * (device.gap - 1)
            + self.trips * device.trip
            + self.handoffs * device.handoff
        )


# The number of warps of each role on a scheduler.
Mix = tuple[int, ...]


def step(
    roles: Sequence[Role], mix: Mix, device: Device, together: bool = True
) -> tuple[float, list[float]]:
    """(cycles of a step, cycles of each role).

    together: the warps of a role leave the same barrier, so they always contend.
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
    """Cycles of the busiest unit. Loads are issued ahead of their use, so shared memory, one for
    all schedulers, limits the throughput but causes no waits.
    """
    shared = SCHEDULERS * sum(n * role.wavefronts for n, role in zip(mix, roles, strict=True))
    units = [sum(n * one[unit] for n, one in zip(mix, work, strict=True)) for unit in work[0]]
    return max(shared, *units)


@dataclass(frozen=True)
class Phase:
    """Equal steps of all resident warps, and the bytes moved in the same time."""

    roles: tuple[Role, ...]
    mixes: tuple[Mix, ...]  # of schedulers that differ; the slowest determines the time
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
    """A kernel that streams strips of an image, row by row (csrc/common/rows.cuh)."""

    roles: tuple[Role, ...]  # in the order in which rows pass through them
    mixes: tuple[Mix, ...]
    columns: int  # stored columns of a strip
    bytes: float  # of device memory per pixel
    reach: int  # extra rows computed above and below a segment
    workers: int = 1  # per multiprocessor, each with its own items
    together: bool = True

    def seconds(self, device: Device, width: int, height: int) -> float:
        strips = ceil(width / self.columns)
        workers = device.processors * self.workers
        segment = ceil(height / segments(strips, height, self.reach, workers))
        turns = ceil(strips * ceil(height / segment) / workers)
        cycles = max(self._cycles(mix, segment, turns, device) for mix in self.mixes)
        memory = self.bytes * width * height / device.bandwidth
        return device.launch + max(cycles / device.clock, memory)

    def _cycles(self, mix: Mix, segment: int, turns: int, device: Device) -> float:
        whole, own = step(self.roles, mix, device, self.together)
        # A role starts when the rows that it needs have arrived; until then it is idle.
        fill = sum(
            _serial(role, role.work(device), device) * (role.beyond - following.beyond + 1)
            for role, following in pairwise(self.roles)
        )
        slowest = max(
            max(cycles, whole if cycles == max(own) else 0) * (segment + role.beyond)
            for cycles, role in zip(own, self.roles, strict=True)
        )
        return fill + turns * slowest


def segments(strips: int, height: int, reach: int, workers: int) -> int:
    """The number of segments of the height; same as count_segments in csrc/common/cut.cuh."""
    best, least = 1, inf
    for count in range(1, height + 1):
        if (count - 1) * strips >= 2 * workers:
            break
        rows = ceil(strips * count / workers) * (ceil(height / count) + 2 * reach)
        if rows < least:
            best, least = count, rows
    return best
