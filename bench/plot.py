"""`python bench/plot.py`: updates the tables and plots of the documents from `bench/results/`.

Tables are between `<!-- bench: NAME -->` and `<!-- end -->`. Plots need matplotlib and contain the
hash of their data; `--tables` skips them. `--check FILE` only checks whether records may be
committed. A test fails if a document does not match the records.
"""

import argparse
import hashlib
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import measured, predict
from bench.machine import ROOT
from bench.network import GRAPH
from bench.record import Record, Row, UsageError
from bench.schema import check
from bench.share import RESULTS

IMAGES = ROOT / "docs/images"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs/performance.md")
MARKED = re.compile(r"(<!-- bench: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
END_TO_END, ALONE = "ESPAN, uint8 to uint8", "ESPAN, network alone"


def records() -> dict[str, Record]:
    """All records, GPUs first; UsageError for an invalid one."""
    paths = sorted(RESULTS.glob("*.json"))
    for path in paths:
        check(path)
    found = {path.stem: Record.read(path) for path in paths}
    return dict(sorted(found.items(), key=lambda pair: pair[1].machine["kind"] != "cuda"))


def digest() -> str:
    """A hash of all records."""
    texts = [path.read_bytes() for path in sorted(RESULTS.glob("*.json"))]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


def _where(m: dict) -> str:
    versions = [f"torch {m['torch']}"] + [f"Triton {m['triton']}"] * (m["kind"] == "cuda")
    threads = [] if m["kind"] == "cuda" else [f"{m['threads']} threads"]
    return ", ".join([m["device"], *threads, *versions, m["date"], f"commit {m['commit']}"])


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


def _of(record: Record, op: str) -> list[Row]:
    return [row for row in record.rows if row.op == op]


def peers(record: Record) -> str:
    """Tables for frames upscaled to 1080p and 4K, or the smallest frame; fastest first."""
    shapes = list(dict.fromkeys(row.shape for row in _of(record, END_TO_END)))
    shown = [shape for shape in shapes if shape in ("480x270", "960x540")] or shapes[:1]
    return "\n\n".join(_peers(record, shape) for shape in shown) or "Not measured here."


def _peers(record: Record, shape: str) -> str:
    """Times from image to image, and of the network alone."""
    on_gpu, graphs = record.machine["kind"] == "cuda", record.format > 1
    contests = {"uint8 to uint8": END_TO_END, "20 % to 80 %": None, "network alone": ALONE}
    if on_gpu and graphs:
        contests = {"uint8 to uint8": END_TO_END, "in a CUDA graph": END_TO_END + GRAPH}
        contests |= {"network alone": ALONE, "that in a CUDA graph": ALONE + GRAPH}
    elif on_gpu:
        contests["network alone, below 1 ms in a CUDA graph"] = contests.pop("network alone")
    times = {
        name: {row.impl: row for row in _of(record, op) if row.shape == shape}
        for name, op in contests.items()
    }

    def cell(name: str, row: Row) -> str:
        if contests[name] is None:
            return f"{_ms(row.q20)} to {_ms(row.q80)}"
        return _ms(times[name][row.impl].median) if row.impl in times[name] else ""

    lines = []
    for row in sorted(times["uint8 to uint8"].values(), key=lambda r: r.median):
        name = f"**{row.impl}**" if row.impl == "espan" else row.impl
        lines.append([name, *(cell(each, row) for each in contests), row.dtype])
    return _table([f"{shape} x4, ms", *contests, "dtype"], lines)


def ops(record: Record) -> str:
    lines = []
    for row in record.rows:
        if row.op in OPS and row.flop:
            rate = f"{row.flop / row.median / 1e9:,.0f}"
            share = f"{100 * row.share:.0f} %" if row.share else ""
            lines.append([row.op, row.impl, row.shape, row.dtype, _ms(row.median), rate, share])
    return _table(["op", "impl", "shape", "dtype", "ms", "GFLOP/s", "of the limit"], lines)


def models(record: Record) -> str:
    graphs = {row.key: row for row in record.rows if row.op.endswith(GRAPH)}
    lines = []
    for row in record.rows:
        if row.op.endswith(ALONE[6:]) and row.impl.startswith(("espan", "eager")):
            name = row.op.removesuffix(ALONE[5:])
            replayed = graphs.get((row.op + GRAPH, *row.key[1:]))
            cells = [_ms(replayed.median) if replayed else ""] if graphs else []
            lines.append([name, row.impl, row.shape, row.dtype, _ms(row.median), *cells])
    head = ["network alone", "impl", "input", "dtype", "ms"]
    return _table(head + ["in a CUDA graph"] * bool(graphs), lines)


def others(record: Record) -> str:
    """Host to host, sizes, tiles, files, a fresh process."""
    wanted = ("host to host", "time over size", "tiles", "PNG file", "a fresh process")
    lines = []
    for row in record.rows:
        if row.op in wanted:
            width, height = map(int, row.shape.split("x"))
            per_pixel = f"{1e9 * row.median / (width * height):,.0f}"
            lines.append([row.op, row.impl, row.shape, _ms(row.median), per_pixel])
    return _table(["what", "how", "input", "ms", "ns per input pixel"], lines)


TABLES = {"peers": peers, "ops": ops, "models": models, "others": others}
PLOTS = {
    "peers": "Peers, from uint8 to uint8",
    "pixels": "Time per pixel over the size of the image",
    "roofline": "The ops against the limits of the machine",
}


def plots(name: str) -> str:
    return "\n".join(f"![{says}](images/{name}_{what}.svg)" for what, says in PLOTS.items())


def text_of(name: str) -> str:
    """The text between the markers called `name`, for every device."""
    if name == "model" or name in measured.TABLES:
        parts = [
            f"{_where(content['machine'])}:\n\n{_table(head, lines)}\n"
            for content, head, lines in measured.tables(name)
        ]
    elif name == "next":
        parts = [_table(*predict.predicted()) + "\n"]
    elif name == "pictures":
        parts = [plots(stem) + "\n" for stem in records()]
    else:
        parts = [
            f"{_where(record.machine)}:\n\n{TABLES[name](record)}\n"
            for record in records().values()
        ]
    return "\n".join(parts) or "Nothing is recorded yet.\n"


def written(document: str) -> str:
    """The document with updated tables."""
    return MARKED.sub(lambda m: f"{m[1]}{text_of(m[2])}{m[3]}", document)


def draw(name: str, record: Record) -> None:
    """Draws a record's plots: NAME_peers.svg, NAME_pixels.svg and NAME_roofline.svg."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "espan", "font.size": 9}
    from matplotlib import pyplot as plt

    def save(figure, what: str):
        about = {"Date": None, "Creator": None, "Description": f"record {digest()}"}
        figure.tight_layout()
        figure.savefig(IMAGES / f"{name}_{what}.svg", metadata=about)
        plt.close(figure)

    rows = _of(record, END_TO_END)
    if rows:
        shown = sorted((r for r in rows if r.shape == rows[0].shape), key=lambda r: -r.median)
        figure, axes = plt.subplots(figsize=(6.4, 0.5 + 0.28 * len(shown)))
        colours = ["tab:orange" if row.impl.startswith("espan") else "tab:gray" for row in shown]
        spread = [
            [1e3 * (r.median - r.q20) for r in shown],
            [1e3 * (r.q80 - r.median) for r in shown],
        ]
        times = [1e3 * row.median for row in shown]
        axes.barh([row.impl for row in shown], times, xerr=spread, color=colours)
        axes.set_xlabel(f"ms from uint8 to uint8, {shown[0].shape} x4")
        save(figure, "peers")

    rows = _of(record, "time over size")
    if rows:
        pixels = [int(w) * int(h) for w, h in (row.shape.split("x") for row in rows)]
        figure, axes = plt.subplots(figsize=(6.4, 3))
        axes.plot(
            [p / 1e6 for p in pixels],
            [1e9 * r.median / p for r, p in zip(rows, pixels, strict=True)],
            "o-",
        )
        axes.set(xscale="log", xlabel="megapixels in", ylabel="ns per input pixel", ylim=(0, None))
        axes.grid(alpha=0.3)
        save(figure, "pixels")

    rows = [row for row in record.rows if row.op in OPS and row.flop and row.bytes]
    if rows:
        _roofline(plt, record, rows, save)


OPS = ("span_gate", "conv3x3", "conv9x9_head", "spab", "tail", "dct2", "dct_l1")


def _roofline(plt, record: Record, rows: list[Row], save) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4))
    intensity = [0.1 * 1.3**i for i in range(40)]
    for kind in sorted({row.dtype for row in rows} & {*record.limits}):
        roof = [min(record.limits[kind], i * record.limits["copy"]) / 1e9 for i in intensity]
        axes.plot(intensity, roof, label=f"limit, {kind}")
    for op in dict.fromkeys(row.op for row in rows):
        some = [row for row in rows if row.op == op]
        at = [row.flop / row.bytes for row in some]
        axes.plot(at, [row.flop / row.median / 1e9 for row in some], "o", label=op, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte moved", ylabel="GFLOP/s")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    save(figure, "roofline")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="skip the plots")
    parser.add_argument("--check", type=Path, nargs="+", metavar="FILE", help="only check records")
    arguments = parser.parse_args(argv)
    try:
        if arguments.check:
            for path in arguments.check:
                check(path)
            return 0
        found = records()
        texts = {path: written(path.read_text()) for path in DOCUMENTS}
    except UsageError as error:
        print(f"plot: {error}", file=sys.stderr)
        return 2
    if not arguments.tables:
        for name, record in found.items():
            draw(name, record)
    for path, text in texts.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
