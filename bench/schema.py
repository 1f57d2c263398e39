"""Validates the files of `bench/results/`: complete, plausible, without personal names.

Three kinds: records of `bench/run.py`, other measurements (`measurements/`), and reports of
`tests/verification/reliability.py` (`reliability/`).
"""

import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from bench.privacy import first_private_name
from bench.record import READ, UsageError, read_json

TEXT = 300  # maximum length of a string


class WrongError(Exception):
    """A validation error and its location in the content."""


def check(path: Path) -> dict:
    """The content of a results file; a one-line UsageError if it must not be committed."""
    content = read_json(path)
    try:
        if not isinstance(content, dict):
            raise WrongError(f"expected names with values, got {type(content).__name__}")
        for kind, checked in KINDS.items():
            if kind in content:
                checked(content)
                break
        else:
            raise WrongError(f"no results: expected one of {', '.join(KINDS)}")
        for where, text in _strings(content):
            if found := first_private_name(text):
                raise WrongError(f"{where} names {found}")
            _say(len(text) <= TEXT and text.isprintable(), where, "a short line", text[:40])
    except WrongError as error:
        raise UsageError(f"{path}: {error}") from error
    return content


def _record(content: dict) -> None:
    _names(content, "the record", {"format", "machine", "limits", "rows", "absent"})
    _say(content["format"] in READ, "format", " or ".join(map(str, READ)), content["format"])
    _machine(
        content["machine"], MACHINE | {"threads": _count, "busy": _amount, "nvcc": _maybe_text}
    )
    limits, rows, absent = (content[name] for name in ("limits", "rows", "absent"))
    _say(isinstance(limits, dict) and {*limits} <= LIMITS, "limits", f"of {LIMITS}", limits)
    for name, value in limits.items():
        _positive(value, f"limits: {name}")
    _say(isinstance(rows, list) and rows != [], "rows", "at least one", rows)
    seen = set()
    for i, row in enumerate(rows):
        _row(row, f"row {i + 1}")
        key = tuple(row[name] for name in ("op", "impl", "shape", "dtype"))
        _say(key not in seen, f"row {i + 1}", "no second of its kind", key)
        seen.add(key)
    _say(isinstance(absent, dict), "absent", "names with reasons", absent)
    for name, reason in absent.items():
        _text(reason, f"absent: {name}")


def _row(row, where: str) -> None:
    texts, numbers = ("op", "impl", "shape", "dtype"), ("median", "q20", "q80")
    optional = {"flop", "bytes", "share", "ratio", "peak"}
    _say(isinstance(row, dict), where, "names with values", row)
    _names(row, where, {*texts, *numbers, "rounds"}, optional)
    for name in texts:
        _text(row[name], f"{where}, {name}")
    _say(re.fullmatch(r"\d+x\d+( x\d+)?", row["shape"]), where, "WIDTHxHEIGHT", row["shape"])
    for name in numbers:
        _positive(row[name], f"{where}, {name}")
    _say(row["q20"] <= row["median"] <= row["q80"], where, "q20 <= median <= q80", "others")
    _count(row["rounds"], f"{where}, rounds")
    for name in optional & {*row}:
        _amount(row[name], f"{where}, {name}")


def _measurements(content: dict) -> None:
    _names(content, "the measurements", {"format", "machine", "measurements"})
    _say(content["format"] == 1, "format", "1", content["format"])
    _machine(content["machine"], MACHINE)
    found = content["measurements"]
    _say(isinstance(found, list) and found != [], "measurements", "at least one", found)
    for i, one in enumerate(found):
        where = f"measurement {i + 1}"
        _say(isinstance(one, dict), where, "names with values", one)
        _names(one, where, {"group", "what", "input", "value", "unit"}, {*PREDICTED})
        for name in {*one} - {"value", "predicted"}:
            _text(one[name], f"{where}, {name}")
        for name in {*one} & {"value", "predicted"}:
            _positive(one[name], f"{where}, {name}")
        _say(len({*PREDICTED} & {*one}) != 1, where, " and ".join(PREDICTED), "one of them")


def _reliability(content: dict) -> None:
    _names(content, "the report", {"long", "machine", "parts"})
    _machine(
        content["machine"], MACHINE | {"threads": _count, "busy": _amount, "nvcc": _maybe_text}
    )
    _say(isinstance(content["parts"], dict), "parts", "names with values", content["parts"])


def _machine(found, known: dict) -> None:
    _say(isinstance(found, dict), "machine", "names with values", found)
    _names(found, "machine", {*known})
    for name, checked in known.items():
        checked(found[name], f"machine: {name}")
    if found["kind"] == "cuda":
        _text(found["driver"], "machine: driver")


def _names(found: dict, where: str, required: set, optional: set = frozenset()) -> None:
    missing, more = required - {*found}, {*found} - required - optional
    if missing:
        raise WrongError(f"{where} lacks {', '.join(sorted(missing))}")
    if more:
        raise WrongError(f"{where} has unknown names: {', '.join(sorted(map(str, more)))}")


def _say(right, where: str, expected: str, got) -> None:
    if not right:
        raise WrongError(f"{where}: expected {expected}, got {' '.join(repr(got).split())[:60]}")


def _text(value, where: str) -> None:
    _say(isinstance(value, str) and value.strip(), where, "a text", value)


def _maybe_text(value, where: str) -> None:
    if value is not None:
        _text(value, where)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value, where: str) -> None:
    _say(_is_number(value) and value > 0, where, "a number above 0", value)


def _count(value, where: str) -> None:
    _say(type(value) is int and value > 0, where, "a count", value)


def _amount(value, where: str) -> None:
    if value is not None:
        _say(_is_number(value) and value >= 0, where, "0 or more", value)


def _kind(value, where: str) -> None:
    _say(value in ("cpu", "cuda"), where, "cpu or cuda", value)


def _commit(value, where: str) -> None:
    right = isinstance(value, str) and re.fullmatch("[0-9a-f]{7,40}", value)
    _say(right, where, "a commit without further changes", value)


def _date(value, where: str) -> None:
    try:
        date.fromisoformat(value)
    except (TypeError, ValueError):
        _say(False, where, "a date like 2026-11-27", value)


def _strings(content, where: str = "") -> Iterator[tuple[str, str]]:
    """(where, text) of all strings, including names."""
    if isinstance(content, str):
        yield where, content
    elif isinstance(content, dict):
        for name, value in content.items():
            below = f"{where}: {name}" if where else str(name)
            yield f"a name in {where or 'the file'}", name
            yield from _strings(value, below)
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from _strings(value, f"{where} {i + 1}")


PREDICTED = ("predicted", "predicted_for")
LIMITS = {"fp32", "bf16", "fp16", "copy"}
MACHINE = {
    "device": _text,
    "kind": _kind,
    "driver": _maybe_text,
    "torch": _text,
    "triton": _maybe_text,
    "python": _text,
    "commit": _commit,
    "date": _date,
}
KINDS = {"rows": _record, "measurements": _measurements, "parts": _reliability}
