"""Compiled costs: the format of the record files, and comparison with new measurements."""

import json
import warnings

# Allowed increase of shared memory over the record.
SHARED = 1.1


class CostsWarning(UserWarning):
    """Differing costs from another compiler version than the record's."""


def as_text(tool: str, version: str, costs: dict) -> str:
    """JSON with one architecture per line, for readable diffs."""
    rows = []
    for key, architectures in costs.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(c)}" for name, c in architectures.items()]
        rows.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
    return f'{{\n  "{tool}": "{version}",\n' + ",\n".join(rows) + "\n}"


def by_kernel(costs: dict) -> dict[str, dict]:
    """{"kernel architecture": cost} of a record; a Triton op may launch several kernels."""
    found = {}
    for key, architectures in costs.items():
        if isinstance(architectures, dict):  # skip the tool's version
            for architecture, cost in architectures.items():
                launched = cost if isinstance(cost, list) else [cost]
                found |= {f"{key} {architecture} {i}": one for i, one in enumerate(launched)}
    return found


def differences(measured: dict[str, dict], recorded: dict[str, dict], registers: int) -> list[str]:
    """A line for each cost above the record; both are {kernel: {name of cost: value}}.

    registers: allowed increase per thread, because ptxas's choices vary by a few.
    """
    found = [f"{name}: not in the record" for name in measured.keys() - recorded.keys()]
    found += [f"{name}: not compiled" for name in recorded.keys() - measured.keys()]
    for name in measured.keys() & recorded.keys():
        for cost, value in measured[name].items():
            was = recorded[name][cost]
            if not _allowed(cost, value, was, registers):
                found.append(f"{name}: {cost} {value}, {was} recorded")
    return sorted(found)


def _allowed(cost: str, value, was, registers: int) -> bool:
    if cost == "registers":
        return value <= was + registers
    if cost == "instructions":
        return len(value) == len(was) and all(
            new <= old for new, old in zip(value, was, strict=True)
        )
    return value <= was * SHARED if cost == "shared" else value == was


def check_costs(found: list[str], tool: str, version: str, recorded_with: str) -> None:
    """Raises AssertionError with the lines of `found`, if any; only a CostsWarning if the record
    was made with another version of `tool`."""
    if found:
        text = "\n".join([f"{tool} {version}, recorded with {recorded_with}:", *found])
        assert version != recorded_with, text
        warnings.warn(text, CostsWarning, stacklevel=2)
