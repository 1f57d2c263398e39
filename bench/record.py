"""Rows of measurements: their table, their file, and comparison with earlier ones."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.privacy import without_private_names
from bench.timing import Timing

# In format 1, a GPU's rows of the network below 1 ms were CUDA graph replays if possible; since
# format 2 graphs have separate rows.
FORMAT, READ = 2, (1, 2)


class UsageError(Exception):
    """Invalid input: one line for the user, exit code 2."""


@dataclass
class Row:
    """One measurement. `op` is an op's name, or the kind of measurement of the network."""

    op: str
    impl: str
    shape: str
    dtype: str
    median: float
    q20: float
    q80: float
    rounds: int
    flop: float | None = None
    bytes: float | None = None
    share: float | None = None
    ratio: float | None = None
    peak: int | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.op, self.impl, self.shape, self.dtype


@dataclass
class Record:
    """The results of one run: rows, and the reasons why others are absent."""

    machine: dict
    limits: dict
    rows: list[Row] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    # Written after every row, so that a run that ends early keeps its rows.
    kept: Path | None = None

    def add(
        self, op, impl, shape, dtype, timing: Timing | str, flop=None, moved=None
    ) -> Row | None:
        """Adds a row, or, if `timing` is an error message, notes that the row is absent."""
        if isinstance(timing, str):
            self.absent[f"{op}: {impl}"] = timing
            return None
        row = Row(
            op,
            impl,
            shape,
            dtype,
            timing.median,
            timing.q20,
            timing.q80,
            timing.rounds,
            flop,
            moved,
            peak=timing.peak,
        )
        self.take(row)
        return row

    def take(self, row: Row) -> None:
        """Adds a row measured in this or another process."""
        row.share = self._share(row.dtype, row.median, row.flop, row.bytes)
        self.rows.append(row)
        if self.kept:
            self.save(self.kept)

    def _share(self, dtype: str, seconds: float, flop, moved) -> float | None:
        """The minimum time by the machine's limits, as a fraction of the measured time."""
        least = []
        if flop and dtype in self.limits:
            least.append(flop / self.limits[dtype])
        if moved and "copy" in self.limits:
            least.append(moved / self.limits["copy"])
        return max(least) / seconds if least else None

    def save(self, path: Path) -> None:
        """Writes the record atomically. Removes names of users, hosts and folders from reasons."""
        content = {key: value for key, value in asdict(self).items() if key != "kept"}
        content["absent"] = {name: without_private_names(why) for name, why in self.absent.items()}
        text = json.dumps({"format": self.format} | content, indent=1)
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text + "\n")
            temporary.replace(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Reads a record; raises a one-line UsageError for other files."""
        content = read_json(path)
        found = content.get("format") if isinstance(content, dict) else None
        if found not in READ:
            known = " or ".join(map(str, READ))
            raise UsageError(f"{path}: format: expected {known}, got {found!r}")
        try:
            rows = [Row(**row) for row in content["rows"]]
            dicts = [content[name] for name in ("machine", "limits", "absent")]
        except (KeyError, TypeError) as error:
            raise UsageError(f"{path}: not a complete results file: {error}") from error
        if not all(isinstance(each, dict) for each in dicts):
            raise UsageError(f"{path}: machine, limits and absent: expected names with values")
        return cls(*dicts[:2], rows, dicts[2], found)


def read_json(path: Path):
    """The content of a JSON file; a one-line UsageError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a results file: {error}") from error


COLUMNS = ("impl", "shape", "dtype", "ms", "20%", "80%", "GFLOP/s", "GB/s", "of limit", "x eager")


def cells(row: Row) -> list[str]:
    def rate(amount):
        return f"{amount / row.median / 1e9:.0f}" if amount else ""

    return [
        row.impl,
        row.shape,
        row.dtype,
        *(f"{1e3 * t:.3g}" if t < 1 else f"{1e3 * t:.0f}" for t in (row.median, row.q20, row.q80)),
        rate(row.flop),
        rate(row.bytes),
        f"{100 * row.share:.0f} %" if row.share else "",
        f"{row.ratio:.2f}" if row.ratio else "",
    ]


def table(rows: list[Row]) -> str:
    """The rows as an aligned table, grouped by op."""
    lines = [list(COLUMNS), *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]

    def joined(line):
        texts = zip(line, widths, strict=True)
        return "  ".join(
            t.ljust(w) if i < 3 else t.rjust(w) for i, (t, w) in enumerate(texts)
        ).rstrip()

    out, last = [joined(list(COLUMNS))], None
    for row, line in zip(rows, lines[1:], strict=True):
        if row.op != last:
            out.append(f"-- {row.op}")
            last = row.op
        out.append(joined(line))
    return "\n".join(out)


def absences(record: Record) -> str:
    """The absent rows, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in record.absent.items():
        by_reason.setdefault(reason, []).append(name)
    return "\n".join(f"  {', '.join(names)}: {reason}" for reason, names in by_reason.items())


def compared(new: Record, old: Record) -> str:
    """The ratio of new to old time for each common row, in ascending order."""
    before = {row.key: row for row in old.rows}
    both = [(row, before[row.key]) for row in new.rows if row.key in before]
    if not both:
        return "no row in common"
    lines = [f"{'now / then':>10}  now ms  then ms"]
    if new.machine.get("device") != old.machine.get("device"):
        lines.insert(0, f"another device: {old.machine.get('device')}")
    for row, then in sorted(both, key=lambda pair: pair[0].median / pair[1].median):
        times = f"{1e3 * row.median:7.3g}  {1e3 * then.median:7.3g}"
        lines.append(f"{row.median / then.median:10.3f}  {times}  {' '.join(row.key)}")
    return "\n".join(lines)
