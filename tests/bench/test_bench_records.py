"""Records of `bench/results/`: complete, without personal names, shown in the documents."""

import copy
import getpass
import json
import socket
from pathlib import Path

import pytest

from bench import measured, plot, run, schema, share
from bench.machine import ROOT
from bench.privacy import first_private_name, without_private_names
from bench.record import FORMAT, Record, UsageError
from bench.timing import Timing

FILES = sorted((ROOT / "bench/results").rglob("*.json"))
H100 = ROOT / "bench/results/h100.json"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(p.parents[1])))
def test_records_are_valid(path):
    schema.check(path)


@pytest.mark.parametrize("path", sorted(H100.parent.glob("*.json")), ids=lambda p: p.stem)
def test_records_are_named_by_their_device(path):
    device = Record.read(path).machine["device"]
    assert path.stem in (share.name_of(device), share.name_of(device, short=False))


def changed(change) -> dict:
    content = copy.deepcopy(json.loads(H100.read_text()))
    change(content)
    return content


def put(*keys, value):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


BAD = {
    "another format": (put("format", value=7), "format: expected 1 or 2, got 7"),
    "no machine": (lambda c: c.pop("machine"), "lacks machine"),
    "a list": (lambda c: c["rows"].clear(), "rows: expected at least one"),
    "a host's name": (put("machine", "host", value="gpu7"), "machine has unknown names: host"),
    "a row of more": (put("rows", 3, "user", value="me"), "row 4 has unknown names: user"),
    "no driver": (put("machine", "driver", value=None), "machine: driver: expected a text"),
    "no commit": (put("machine", "commit", value="unknown"), "a commit without further changes"),
    "changes": (put("machine", "commit", value="41041214+changes"), "without further changes"),
    "no date": (put("machine", "date", value="yesterday"), "machine: date: expected a date"),
    "a time of 0": (put("rows", 0, "median", value=0), "row 1, median: expected a number above 0"),
    "no number": (put("rows", 0, "flop", value=float("nan")), "row 1, flop: expected 0 or more"),
    "quantiles": (put("rows", 0, "q20", value=9.0), "expected q20 <= median <= q80"),
    "a shape": (put("rows", 0, "shape", value="large"), "expected WIDTHxHEIGHT"),
    "twice": (lambda c: c["rows"].append(c["rows"][0]), "no second of its kind"),
    "a folder": (put("absent", "x", value="no /home/ann/lib.so"), "names a folder: '/home/ann"),
    "of Windows": (put("absent", "x", value=r"in C:\Users\ann"), r"names a folder: 'C:\\Users"),
    "below home": (put("absent", "ncnn", value="see ~/lib"), "absent: ncnn names a folder"),
    "in a name": (put("absent", "/opt/x", value="it failed"), "names a folder: '/opt/x'"),
    "a relative one": (put("absent", "x", value="venv/lib/site"), "names a folder: 'venv/lib"),
    "a user": (put("absent", "x", value="ann@gpu7 said no"), "names a user at a host: 'ann@gpu7'"),
    "a long text": (put("absent", "x", value="a" * 400), "expected a short line"),
    "lines": (put("machine", "device", value="a\nb"), "expected a short line"),
    "other results": (lambda c: c.pop("rows"), "no results: expected one of rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_record_gives_one_line_and_exit_code_2(name, tmp_path, capsys, monkeypatch):
    change, says = BAD[name]
    bad = tmp_path / "h100.json"
    bad.write_text(json.dumps(changed(change)))
    assert plot.main(["--check", str(bad)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"plot: {bad}: ") and says in said.err and not said.out
    assert said.err.count("\n") == 1
    # It does not appear in documents either.
    page = tmp_path / "page.md"
    page.write_text("<!-- bench: peers -->\n<!-- end -->\n")
    monkeypatch.setattr(plot, "RESULTS", tmp_path)
    monkeypatch.setattr(plot, "DOCUMENTS", (page,))
    assert plot.main(["--tables"]) == 2
    assert page.read_text() == "<!-- bench: peers -->\n<!-- end -->\n"


@pytest.mark.parametrize("content", [H100.read_bytes()[:5000], b"", b"\xff\xfe", b"[" * 10**5])
def test_truncated_or_invalid_record(content, tmp_path, capsys):
    (tmp_path / "r.json").write_bytes(content)
    for command in (plot.main, run.main):
        option = "--check" if command is plot.main else "--compare"
        assert command([option, str(tmp_path / "r.json")]) == 2
        said = capsys.readouterr().err
        assert "not a results file" in said and said.count("\n") == 1


def test_missing_record(tmp_path, capsys):
    assert plot.main(["--check", str(tmp_path)]) == 2
    assert plot.main(["--check", str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.count("cannot be read") == 2
    assert plot.main(["--check", str(H100)]) == 0


def test_reasons_contain_no_folders_users_or_hosts(tmp_path, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu7")
    before = {
        "libcuda.so: cannot open /usr/lib/x/libfoo.so.1: no such file": "libfoo.so.1: no such file",
        "ann on gpu7 may not": "user on host may not",
        r"C:\Users\ann\x.dll is missing": "x.dll is missing",
        "/home/ann": "user",
        "mail ann@gpu7.example": "mail user",
        "planned annual GFLOP/s of 2/3 and/or x": "planned annual GFLOP/s of 2/3 and/or x",
    }
    for text, after in before.items():
        public = without_private_names(text)
        assert public.endswith(after) and first_private_name(public) is None
    made = Record({}, {}, absent={"ncnn": "no /home/ann/ncnn.so"})
    made.save(tmp_path / "r.json")
    assert Record.read(tmp_path / "r.json").absent == {"ncnn": "no ncnn.so"}


@pytest.mark.parametrize(
    ("device", "short", "long"),
    [
        ("NVIDIA H100 80GB HBM3", "h100", "h100_80gb_hbm3"),
        ("NVIDIA H100 PCIe", "h100_pcie", "h100_pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100", "a100_sxm4_80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx_4090", "rtx_4090"),
        ("AMD EPYC 7B13 64-Core Processor (avx2)", "epyc_7b13_64_core", "epyc_7b13_64_core"),
        ("Intel(R) Core(TM) i7-9700K CPU @ 3.60GHz (avx2)", "core_i7_9700k", "core_i7_9700k"),
        ("../../etc/passwd", "etc_passwd", "etc_passwd"),
        ("GPU", "unknown", "unknown"),
    ],
)
def test_a_record_has_the_name_of_its_device(device, short, long, tmp_path):
    assert share.name_of(device) == short and share.name_of(device, short=False) == long
    here = {"device": device, "commit": "41041214"}
    assert share.place(here, tmp_path) == tmp_path / f"{short}.json"
    Record(here, {}).save(tmp_path / f"{short}.json")
    assert share.place(here, tmp_path) == tmp_path / f"{short}.json"  # the newer one replaces it
    Record({"device": "another"}, {}).save(tmp_path / f"{short}.json")
    assert share.place(here, tmp_path) == tmp_path / f"{long}.json"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """`--record` writes into a test folder, with fixed machine facts."""
    facts = json.loads(H100.read_text())["machine"]
    monkeypatch.setattr(run.machine, "facts", lambda device: dict(facts))
    monkeypatch.setattr(run.machine, "limits", lambda device: {"copy": 1e12})
    monkeypatch.setattr(share, "RESULTS", tmp_path)
    parts = {"one": lambda r: r.add("spab", "eager", "4x4", "fp32", Timing.of([1.0]))}
    monkeypatch.setattr(run, "parts", lambda *_: parts)
    return facts, parts, tmp_path


def test_a_record_is_written_under_its_device_s_name(checkout, capsys):
    _, parts, folder = checkout
    parts["two"] = lambda r: r.absent.update(x="no /home/ann/libx.so")
    assert run.main(["--record", "--device", "cpu"]) == 0
    assert [path.name for path in folder.iterdir()] == ["h100.json"]
    assert schema.check(folder / "h100.json")["format"] == FORMAT
    assert "h100.json" in capsys.readouterr().out


def test_interrupted_record_keeps_the_older_one(checkout, capsys):
    _, parts, folder = checkout
    (folder / "h100.json").write_bytes(H100.read_bytes())

    def interrupted(record):
        raise run.EndedEarlyError("stopped", 130)

    parts["two"] = interrupted
    assert run.main(["--record", "--device", "cpu"]) == 130
    assert (folder / "h100.json").read_bytes() == H100.read_bytes()
    assert len(Record.read(folder / "h100.json.part").rows) == 1
    assert "h100.json.part" in capsys.readouterr().err


@pytest.mark.parametrize("commit", ["unknown", "41041214+changes"])
def test_a_record_needs_a_commit(commit, checkout, capsys):
    facts, _, folder = checkout
    facts["commit"] = commit
    assert run.main(["--record", "--device", "cpu"]) == 2
    assert "must name its commit" in capsys.readouterr().err and not [*folder.iterdir()]


@pytest.mark.parametrize("more", [["spab"], ["--impl", "eager"], ["--shapes", "4x4"]], ids=str)
def test_record_excludes_selection_options(more, capsys):
    assert run.main(["--record", *more]) == 2
    assert "cannot be combined" in capsys.readouterr().err


@pytest.mark.parametrize("path", plot.DOCUMENTS, ids=lambda p: p.name)
def test_documents_match_the_records(path):
    document = path.read_text()
    assert plot.MARKED.search(document)
    assert plot.written(document) == document, "run: python bench/plot.py"


def test_readme_shows_a_gpu_first():
    speed = (ROOT / "README.md").read_text().split("## Speed")[1]
    assert 0 < speed.index("NVIDIA") < speed.index("Intel")
    for name, record in plot.records().items():
        assert f"{record.machine['device']}, " in speed, name


def test_plots_match_the_records():
    for name in plot.records():
        for what in plot.PLOTS:
            drawn = (plot.IMAGES / f"{name}_{what}.svg").read_text()
            assert f"record {plot.digest()}" in drawn, "run: python bench/plot.py"


def record_of(kind: str, rows: dict[tuple[str, str, str], float], version: int = FORMAT) -> Record:
    """rows: {(op, impl, shape): seconds}"""
    facts = json.loads(H100.read_text())["machine"] | {"kind": kind, "device": f"a {kind}"}
    made = Record(facts, {}, format=version)
    for (op, impl, shape), seconds in rows.items():
        made.add(op, impl, shape, "fp16", Timing.of([seconds]), 1e6, 1e6)
    return made


def table_of(record: Record, name: str, folder: Path, monkeypatch) -> str:
    record.save(folder / "some.json")
    monkeypatch.setattr(plot, "RESULTS", folder)
    return plot.written(f"a\n<!-- bench: {name} -->\nold\n<!-- end -->\nb\n")


def test_tables_come_from_rows(tmp_path, monkeypatch):
    rows = {(plot.END_TO_END, impl, "480x270"): s for impl, s in (("espan", 0.07), ("eager", 0.09))}
    rows[plot.ALONE, "eager", "480x270"] = 0.08
    said = table_of(record_of("cpu", rows), "peers", tmp_path, monkeypatch)
    assert "| **espan** | 70 | 70 to 70 |  | fp16 |" in said and "old" not in said
    assert "| eager | 90 | 90 to 90 | 80 | fp16 |" in said
    assert plot.written(said) == said
    said = table_of(record_of("cpu", {("spab", "x", "4x4"): 0.002}), "ops", tmp_path, monkeypatch)
    assert "| spab | x | 4x4 | fp16 | 2 | 0 |  |" in said


def test_gpu_table_has_calls_and_graphs_at_both_sizes(tmp_path, monkeypatch):
    rows = {}
    for shape in ("480x270", "960x540"):
        for i, op in enumerate((plot.END_TO_END, plot.END_TO_END + plot.GRAPH, plot.ALONE)):
            rows[op, "eager fp16", shape] = 0.004 - i / 1000
    rows[plot.ALONE + plot.GRAPH, "eager fp16", "960x540"] = 0.001
    said = table_of(record_of("cuda", rows), "peers", tmp_path, monkeypatch)
    assert "480x270 x4, ms | uint8 to uint8 | in a CUDA graph | network alone | that in a" in said
    assert "| eager fp16 | 4 | 3 | 2 |  | fp16 |" in said
    assert "| eager fp16 | 4 | 3 | 2 | 1 | fp16 |" in said
    said = table_of(record_of("cuda", rows), "models", tmp_path, monkeypatch)
    assert "| ESPAN | eager fp16 | 960x540 | fp16 | 2 | 1 |" in said
    old = table_of(record_of("cuda", rows, 1), "peers", tmp_path, monkeypatch)
    assert "network alone, below 1 ms in a CUDA graph" in old


def test_measurements_become_tables(tmp_path, monkeypatch):
    content = schema.check(measured.FOLDER / "h100.json")
    some = {"group": "frames", "what": "it", "input": "480x270", "value": 0.3, "unit": "ms"}
    content["measurements"] = [
        some | {"predicted": 0.1, "predicted_for": "an H200"},
        some | {"input": "1x1", "value": 2000},
        some | {"what": "that"},
    ]
    (tmp_path / "m.json").write_text(json.dumps(content))
    monkeypatch.setattr(measured, "FOLDER", tmp_path)
    said = plot.text_of("frames")
    assert "| ms | 480x270 to 1080p | 1x1 |" in said and "| that | 0.3 |  |" in said
    assert "| it | 0.3 | 2,000 |" in said
    assert "| it | 480x270 | 0.1 ms | 0.3 ms | 3.00 |" in plot.text_of("predicted")
    content["measurements"].append(some | {"predicted": 1.0})
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="measurement 4: expected predicted and predicted_for"):
        plot.text_of("frames")
