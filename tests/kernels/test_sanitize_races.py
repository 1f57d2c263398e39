"""tests/verification/sanitize.py: false positives of racecheck, as found in a correct program."""

import subprocess
from functools import partial

import pytest

from tests.verification import sanitize
from tests.verification.test_sanitize import (
    DIVERGENT,
    NO_RACE,
    NOT_SUPPORTED,
    OUT_OF_BOUNDS,
    UNBUILT,
    UNINITIALIZED,
    write_tool,
)

# Output of racecheck for ten correct lines on an H100.
OF_A_CORRECT_PROGRAM = """\
========= COMPUTE-SANITIZER
========= Error: Race reported between Read access at ok(int *, int)+0x480 in race.cu:6
=========     and Write access at ok(int *, int)+0x880 in race.cu:4 [512 hazards]
=========
ok no error
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
# From the output for kernels that arrive at barriers, without the other side of the race.
LOAD = (
    "espan::ldmatrix_x4(unsigned int (&)[4], espan::Shared<unsigned int>, int)+0x1810 in ptx.cuh:23"
)
STORE = "espan::Shared<__half>::store(int, __half) const+0x2a20 in common.cuh:43"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return partial(write_tool, tmp_path)


def of_races(*races: tuple[str, str, str]) -> str:
    """Output of racecheck for races, each (severity and first access, location, other access)."""
    lines = ["========= COMPUTE-SANITIZER"]
    for first, where, other in races:
        severity, access = first.split()
        lines.append(f"========= {severity}: Race reported between {access} access at {where}")
        lines.append(f"=========     and {other} access at {STORE} [{len(lines)} hazards]")
        lines.append("=========")
    return "\n".join([*lines, f"========= RACECHECK SUMMARY: {len(races)} hazards displayed"])


FORMS = frozenset({"Error: Read, Write"})
LIKE_IT = ("Error Read", LOAD, "Write")


def test_races_of_a_correct_program_have_a_form():
    (found,) = sanitize.read(OF_A_CORRECT_PROGRAM)[0]
    assert {sanitize.form(found)} == FORMS
    assert sanitize.form("Invalid __global__ read of size 4 bytes at kernel()+0x90") is None
    (two,) = sanitize.read(
        of_races(LIKE_IT).replace("\n=========\n", f"\n=========     and Read access at {LOAD}\n")
    )[0]
    assert sanitize.form(two) == "Error: Read, Read, Write"


def test_races_of_that_form_cannot_be_judged():
    text = of_races(LIKE_IT, LIKE_IT)
    line = (
        "cannot be judged by this tool: 2 x Error: Race reported between Read access at "
        f"{LOAD} and Write access at {STORE}"
    )
    for code in (0, 7):
        outcome, lines = sanitize.parse(text, code, FORMS)
        assert outcome == "unjudged" and lines == [line[: len(lines[0])]] and len(lines[0]) > 200
    assert sanitize.parse(text, 7)[0] == "findings"
    # The calls failed, or the summary is missing.
    assert sanitize.parse(text, 3, FORMS)[0] == "broken"
    assert sanitize.parse(text.rsplit("\n", 1)[0], 7, FORMS)[0] == "broken"


@pytest.mark.parametrize(
    "other",
    [
        ("Warning Write", STORE, "Write"),
        ("Warning Read", LOAD, "Write"),
        ("Error Write", STORE, "Read"),
        ("Error Write", STORE, "Write"),
    ],
    ids=str,
)
def test_other_findings_still_fail(other):
    outcome, lines = sanitize.parse(of_races(LIKE_IT, other), 7, FORMS)
    assert outcome == "findings" and len(lines) == 2
    assert lines[0].startswith("1 x ") and lines[1].startswith("cannot be judged by this tool: ")
    for text in (OUT_OF_BOUNDS, UNINITIALIZED, DIVERGENT):
        assert sanitize.parse(text, 7, FORMS)[0] == "findings"
    # A race that is counted but not shown.
    more = of_races(LIKE_IT).replace("SUMMARY: 1", "SUMMARY: 2")
    assert sanitize.parse(more, 7, FORMS)[1][0] == "1 counted only by the summary"


@pytest.fixture
def nvcc(tmp_path, tool):
    """A fake nvcc that compiles nothing and exits with a given code."""

    def write(code: int) -> None:
        script = tmp_path / "bin" / "nvcc"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\necho it said so\nexit {code}\n")
        script.chmod(0o755)

    return write


@pytest.mark.parametrize(
    ("text", "code", "outcome", "forms"),
    [
        (OF_A_CORRECT_PROGRAM, 7, "unjudged", FORMS),
        (NO_RACE, 0, "clean", frozenset()),
        (OF_A_CORRECT_PROGRAM, 1, "broken", frozenset()),  # its sums are wrong
        (NOT_SUPPORTED, 0, "broken", frozenset()),
    ],
    ids=["flagged", "clean", "wrong", "not supported"],
)
def test_excuses_from_the_correct_program(tool, nvcc, tmp_path, text, code, outcome, forms):
    tool(text, code)
    nvcc(0)
    part, found = sanitize.probe(tmp_path)
    assert (part.outcome, found) == (outcome, forms)
    assert (tmp_path / "sanitize_racecheck_right.txt").read_text() == text


def test_without_the_correct_program_nothing_is_excused(tool, nvcc, monkeypatch):
    tool(OF_A_CORRECT_PROGRAM, 7)
    nvcc(2)
    part, forms = sanitize.probe()
    assert part.outcome == "broken" and part.lines == ["it said so"] and not forms
    monkeypatch.setattr(sanitize, "find", lambda name: None)
    part, forms = sanitize.probe()
    assert part.outcome == "broken" and part.lines == ["no nvcc to build it"] and not forms


@pytest.mark.parametrize(
    ("tool_name", "group", "outcome"),
    [
        ("racecheck", "arriving", "unjudged"),
        ("racecheck", "cuda", "findings"),
        ("racecheck", "triton", "findings"),
        ("memcheck", "arriving", "findings"),
    ],
)
def test_only_kernels_that_arrive_at_barriers_are_excused(tool, tool_name, group, outcome):
    tool(of_races(LIKE_IT), 7)
    assert sanitize.check(tool_name, group, forms=FORMS).outcome == outcome


def test_unjudged_findings_do_not_fail(tool, monkeypatch, capsys):
    tool(OF_A_CORRECT_PROGRAM, 7)
    monkeypatch.setattr(sanitize, "missing", lambda: None)
    monkeypatch.setattr(sanitize, "TOOLS", ("racecheck",))
    monkeypatch.setattr(sanitize, "GROUPS", {"arriving": "cuda"})
    monkeypatch.setattr(sanitize, "calls_command", lambda group: ["true"])
    monkeypatch.setattr(sanitize, "probe", lambda report: (UNBUILT, FORMS))
    assert sanitize.sanitize() == 0
    assert "racecheck  arriving unjudged" in capsys.readouterr().out
    monkeypatch.setattr(sanitize, "probe", lambda report: (UNBUILT, frozenset()))
    assert sanitize.sanitize() == 1


@pytest.mark.compile
def test_correct_program_compiles(tmp_path):
    if (nvcc := sanitize.find("nvcc")) is None:
        pytest.skip("no nvcc")
    command = [nvcc, "-std=c++17", "-arch=sm_80", "-cubin", sanitize.RIGHT, "-o", tmp_path / "out"]
    assert subprocess.run(command).returncode == 0
