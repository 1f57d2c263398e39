"""Predicts the run time of a kernel on a GPU from the operation counts and waits of its warps.

A multiprocessor has four schedulers. A warp executes sequentially: products, other instructions,
special functions, memory waits. It shares each unit with other warps: R, its time at a unit, is its
work D times 1 + the expected number of other warps there, and each other warp is there with
probability R / T, where T is the time of a step (mean value analysis of a closed queueing network).
Roles that pass rows to each other take the same number of steps, so the slowest role determines T.
The same analysis joins rows with device memory: as many rows as a kernel has ring slots are either
being loaded or in use. There are no per-kernel parameters: kernels differ only by their counts
(kernel_counts.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from bench.cut import Share, even_shares, shares

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
    handoff=50,
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
    # Of its instructions and handoffs, those that run during its own products, on the previous
    # row. All special functions do, if any instruction does.
    overlapped: float = 0
    overlapped_handoffs: float = 0
    beyond: int = 0  # rows computed in addition to its segment

    def work(self, device: Device) -> dict[str, float]:
        """Cycles of work at each unit."""
        products = self.mma * device.mma_cycles() + sum(map(device.wgmma_cycles, self.wgmma))
        return {
            "tensor": products,
            "issue": self.instructions + self.special,
            "special": self.special * device.special,
        }

    def cycles(self, at: dict[str, float], device: Device) -> float:
        """Cycles of a step that spends the cycles `at` at each unit."""
        products = at["tensor"] + (device.latency if self.wgmma else 0)
        instructions = at["issue"] + self.instructions * (device.gap - 1)
        share = self.overlapped / self.instructions if self.overlapped else 0
        during = share * instructions + self.overlapped_handoffs * device.handoff
        after = (
            (1 - share) * instructions
            + self.trips * device.trip
            + (self.handoffs - self.overlapped_handoffs) * device.handoff
        )
        if self.overlapped:
            return max(products, during + at["special"]) + after
        return products + at["special"] + after

    def unhindered(self, device: Device) -> float:
        """Cycles of a step of a warp that shares no unit."""
        return self.cycles(self.work(device), device)


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
        own = [role.cycles(one, device) for role, one in zip(roles, at, strict=True)]
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


def pipelined(compute: float, memory: float, slots: int) -> float:
    """The time of work that takes `compute` and `memory` alone, if `slots` rows are under way: each
    waits for memory, then for its processing (mean value analysis of the two).
    """
    queues, whole = [0.0, 0.0], 0.0
    for rows in range(1, slots + 1):
        times = [compute * (1 + queues[0]), memory * (1 + queues[1])]
        whole = sum(times)
        queues = [rows * time / whole for time in times]
    return whole / slots


@dataclass(frozen=True)
class Rows:
    """A kernel that streams strips of an image, row by row (csrc/common/rows.cuh)."""

    roles: tuple[Role, ...]  # in the order in which rows pass through them
    mixes: tuple[Mix, ...]  # of schedulers that differ; the slowest determines the time
    columns: int  # stored columns of a strip
    bytes: float  # of device memory per pixel
    reach: int  # extra rows computed above and below a segment
    slots: int  # rows per multiprocessor that are being loaded or in use
    workers: int = 1  # per multiprocessor, each with its own items
    together: bool = True
    even: bool = False  # whether rows are shared out evenly, not in items

    def seconds(self, device: Device, width: int, height: int) -> float:
        compute = self.cycles(device, width, height) / device.clock
        memory = self.bytes * width * height / device.bandwidth
        return device.launch + pipelined(compute, memory, self.slots)

    def shares(self, device: Device, width: int, height: int) -> list[Share]:
        strips = ceil(width / self.columns)
        cut = even_shares if self.even else shares
        return cut(strips, height, self.reach, device.processors * self.workers)

    def cycles(self, device: Device, width: int, height: int) -> float:
        """Cycles of the multiprocessor with the most rows, if memory never lets it wait."""
        found = self.shares(device, width, height)
        # The workers of the busiest multiprocessor.
        busy = ceil(min(len(found), device.processors * self.workers) / device.processors)
        mixes = [tuple(ceil(n * busy / self.workers) for n in mix) for mix in self.mixes]
        return max(self._cycles(mix, found, device) for mix in mixes)

    def _cycles(self, mix: Mix, found: list[Share], device: Device) -> float:
        whole, own = step(self.roles, mix, device, self.together)
        # A role starts when the rows that it needs have arrived; until then it is idle. A role that
        # overlaps passes a row on one step later.
        fill = sum(
            role.unhindered(device) * (role.beyond - following.beyond + 1 + bool(role.overlapped))
            for role, following in pairwise(self.roles)
        )
        slowest = max(
            max(cycles, whole if cycles == max(own) else 0) * rows
            for cycles, role in zip(own, self.roles, strict=True)
            for rows in {sum(share) + role.beyond * len(share) for share in found}
        )
        return fill + slowest
