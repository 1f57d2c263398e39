"""The report on guarantees: it shows which were broken, and its commands exist."""

import json

import pytest

from tests.verification import reliability

FINE = {
    "damaged files": {"files": 9, "findings": [], "outcomes": {"InputError": 5, "picture": 4}},
    "planted bugs": {"kernels": {"planted": 2, "caught": 2}},
}


def commands(monkeypatch, results: dict) -> None:
    made = {name: ["-c", f"print({json.dumps(found)!r})"] for name, found in results.items()}
    monkeypatch.setattr(reliability, "parts", lambda long: made)


def test_the_report_shows_and_saves_the_counts(monkeypatch, tmp_path, capsys):
    commands(monkeypatch, FINE)
    assert reliability.main(["--json", str(tmp_path / "r.json")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "kept   files 9, outcomes InputError 5 / picture 4" in first
    assert "kept   kernels planted 2 / caught 2" in second
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept["parts"]["planted bugs"]["kernels"] == {"planted": 2, "caught": 2}
    assert kept["machine"]["commit"]


@pytest.mark.parametrize(
    "found",
    [
        {"findings": ["seed 3"]},
        {"kills": 3, "half_files": 1},
        {"rounds": 250, "mismatches": 1},
        {"faults": 9, "wrong": 2},
        {"kernels": {"planted": 2, "caught": 1}},
    ],
    ids=str,
)
def test_the_report_shows_a_broken_guarantee(monkeypatch, capsys, found):
    commands(monkeypatch, FINE | {"one": found})
    assert reliability.main([]) == 1
    assert capsys.readouterr().out.splitlines()[2].startswith("one              BROKEN")


def test_a_part_that_fails_is_broken():
    failed = reliability.run(["-c", "raise SystemExit('no memory')"])
    assert reliability.broken(failed) and failed["error"] == "no memory"
    late = reliability.run(["-c", "print('{}'); raise SystemExit('a bug survived')"])
    assert reliability.broken(late) and late["error"] == "a bug survived"


@pytest.mark.parametrize("long", [False, True])
def test_the_command_of_every_part_exists(long):
    for command in reliability.parts(long).values():
        if command[0] == "-m":
            found = reliability.run([*command[:2], "--help"])
            assert "usage: python -m" in found["error"] or "it printed nothing" in found["error"]
        elif command[0] == "-c":
            compile(command[1], "command", "exec")
        else:
            assert (reliability.ROOT / command[0]).is_file()
    assert reliability.main(["--json", "/no/such/folder/r.json"]) == 2
