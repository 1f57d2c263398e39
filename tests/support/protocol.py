"""A model of the roles of a kernel that pass rows through ring buffers (csrc/wgmma/ring.cuh).

A role is a list of steps: beginning and ending to write or read a row of a ring. A begin waits for
a phase of the slot's barrier, `full` or `empty`, by parity; an end arrives at the other barrier.
The model tries random or all orders of steps, and detects deadlocks, excess arrivals, and reads of
wrong or missing rows.
"""

import random
from typing import NamedTuple

# State of a part of a slot besides its row: the number of pending readers, or being written.
READ, WRITTEN = 0, -1


class ProtocolError(AssertionError):
    """A conflict of two roles, or a deadlock."""


class Ring(NamedTuple):
    """`writers` warps each fill a part of a slot; `readers` warps each read all of it."""

    name: str
    slots: int
    writers: int
    readers: int


class Step(NamedTuple):
    """A step of a role: its kind, the row number in the ring, and the expected row."""

    kind: str
    ring: Ring
    number: int
    row: tuple[int, int]
    part: int
    parity: int

    @property
    def lap(self) -> int:
        return self.number // self.ring.slots


class End:
    """Adds begin and end steps at one end of a ring, row by row."""

    verb, first_parity = "", 0

    def __init__(self, steps: list[Step], ring: Ring, part: int = 0):
        self.steps, self.ring, self.part = steps, ring, part
        self.number = 0
        self.row = (0, 0)

    def _add(self, kind: str) -> None:
        parity = (self.first_parity + self.number // self.ring.slots) % 2
        step = Step(kind, self.ring, self.number, self.row, self.part, parity)
        self.steps.append(step)

    def begin(self, row: tuple[int, int]) -> None:
        self.row = row
        self._add(f"begin to {self.verb}")

    def end(self) -> None:
        self._add(f"end to {self.verb}")
        self.number += 1


class Writer(End):
    verb, first_parity = "write", 1


class Reader(End):
    verb, first_parity = "read", 0


def bulk_copies(name: str, ring: Ring, rows: list[tuple[int, int]]) -> dict[str, list[Step]]:
    """A thread that starts copies into a ring, and the copies, which end in any order."""
    started: list[Step] = []
    writer = Writer(started, ring)
    for row in rows:
        writer.begin(row)
        writer.end()
    roles = {name: [step for step in started if step.kind == "begin to write"]}
    for slot in range(ring.slots):
        ends = [step for step in started if step.kind == "end to write"]
        mine = [step for step in ends if step.number % ring.slots == slot]
        roles[f"{name}, slot {slot}"] = [step._replace(kind="copied") for step in mine]
    return roles


class Model:
    """Roles and their state, a comparable tuple of numbers."""

    def __init__(self, roles: dict[str, list[Step]]):
        self.names, self.steps = [*roles], [*roles.values()]
        self.bases: dict[tuple[str, int], int] = {}
        size = len(roles)
        for ring in sorted({step.ring for steps in self.steps for step in steps}):
            for slot in range(ring.slots):
                # Arrivals at full and empty; for each part its row (item, y) and its readers.
                self.bases[ring.name, slot] = size
                size += 2 + 3 * ring.writers
        self.start = (0,) * size

    def _base(self, step: Step) -> int:
        return self.bases[step.ring.name, step.number % step.ring.slots]

    def _is_ready(self, state, step: Step) -> bool:
        base, ring = self._base(step), step.ring
        if step.kind == "begin to write":
            return state[base + 1] // ring.readers % 2 != step.parity
        if step.kind == "begin to read":
            return state[base] // ring.writers % 2 != step.parity
        if step.kind == "copied":
            return (*state[base + 2 : base + 5],) == (*step.row, WRITTEN)
        return True

    def ready(self, state) -> list[int]:
        """The roles that can take a step."""
        return [
            i
            for i, steps in enumerate(self.steps)
            if state[i] < len(steps) and self._is_ready(state, steps[state[i]])
        ]

    def after(self, state, role: int) -> tuple:
        """The state after the role's next step; raises ProtocolError for invalid steps."""
        step = self.steps[role][state[role]]
        new, base, ring = [*state], self._base(step), step.ring
        new[role] += 1

        def check(holds: bool, what: str) -> None:
            if not holds:
                raise ProtocolError(f"{self.names[role]}, {ring.name} {step.row}: {what}")

        def arrive(at: int, count: int) -> None:
            check(new[at] // count == step.lap, "too many arrivals")
            new[at] += 1

        mine = base + 2 + 3 * step.part
        if step.kind == "begin to write":
            check(new[mine + 2] == READ, "written before it was read")
            new[mine : mine + 3] = [*step.row, WRITTEN]
        elif step.kind in ("end to write", "copied"):
            new[mine + 2] = ring.readers
            arrive(base, ring.writers)
        else:
            for part in range(base + 2, base + 2 + 3 * ring.writers, 3):
                is_there = new[part + 2] > READ and (*new[part : part + 2],) == step.row
                check(is_there, f"{step.kind}, and there is {new[part : part + 3]}")
                new[part + 2] -= step.kind == "end to read"
            if step.kind == "end to read":
                arrive(base + 1, ring.readers)
        return tuple(new)

    def check_end(self, state) -> None:
        """Checks a state in which no role can take a step."""
        waiting = [i for i, steps in enumerate(self.steps) if state[i] < len(steps)]
        if waiting:
            found = [(self.names[i], self.steps[i][state[i]]) for i in waiting]
            said = ", ".join(f"{name} at {s.kind} {s.ring.name} {s.row}" for name, s in found)
            raise ProtocolError(f"deadlock: {said}")
        for (name, slot), base in self.bases.items():
            if state[base + 4] != READ:
                raise ProtocolError(f"{name}, slot {slot}: an unread row")


def run(model: Model, seed: int) -> None:
    """Runs one order of steps: always the first ready role in an occasionally shuffled order."""
    chance = random.Random(seed)
    state = model.start
    order = [*range(len(model.steps))]
    while ready := model.ready(state):
        if chance.random() < 0.1:
            chance.shuffle(order)
        state = model.after(state, min(ready, key=order.__getitem__))
    model.check_end(state)


def search(model: Model) -> int:
    """Tries every order of steps; returns the number of states."""
    seen, left = {model.start}, [model.start]
    while left:
        state = left.pop()
        ready = model.ready(state)
        if not ready:
            model.check_end(state)
        for role in ready:
            new = model.after(state, role)
            if new not in seen:
                seen.add(new)
                left.append(new)
    return len(seen)
