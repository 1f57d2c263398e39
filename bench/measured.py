"""Tables of `bench/results/measurements/`: measurements not made by `bench/run.py`."""

from bench.predict import MEASUREMENTS, accuracy
from bench.schema import check
from bench.share import RESULTS

FOLDER = RESULTS / "measurements"
BECOMES = {"480x270": "1080p", "960x540": "4K", "1920x1080": "8K"}


def contents() -> list[dict]:
    """The files' contents, one per device."""
    return [check(path) for path in sorted(FOLDER.glob("*.json"))]


def matrix(content: dict, group: str) -> tuple[list[str], list[list[str]]]:
    """(head, lines): a line for each measured quantity, a column for each input."""
    found = [one for one in content["measurements"] if one["group"] == group]
    inputs = list(dict.fromkeys(one["input"] for one in found))
    units = list(dict.fromkeys(one["unit"] for one in found))
    values = {(one["what"], one["input"]): _value(one, units) for one in found}
    whats = dict.fromkeys(one["what"] for one in found)
    lines = [[what, *(values.get((what, each), "") for each in inputs)] for what in whats]
    return [units[0] if len(units) == 1 else "", *map(_input, inputs)], lines


def _input(size: str) -> str:
    return f"{size} to {BECOMES[size]}" if size in BECOMES else size


def _value(one: dict, units: list[str]) -> str:
    return _number(one["value"]) + (f" {one['unit']}" if len(units) > 1 else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def predicted(content: dict) -> tuple[list[str], list[list[str]]]:
    """(head, lines) of all predictions made before the measurement."""
    found = [one for one in content["measurements"] if "predicted" in one]
    lines = []
    for one in found:
        numbers = [f"{_number(one[name])} {one['unit']}" for name in ("predicted", "value")]
        times = f"{one['value'] / one['predicted']:.2f}"
        lines.append([one["what"], one["input"], numbers[0], numbers[1], times])
    devices = ", ".join(dict.fromkeys(one["predicted_for"] for one in found))
    return ["", "input", f"predicted, {devices}", "measured", "times as long"], lines


TABLES = {
    "frames": lambda content: matrix(content, "frames"),
    "host": lambda content: matrix(content, "host"),
    "loss": lambda content: matrix(content, "loss"),
    "hopper": lambda content: matrix(content, "hopper"),
    "hopper first": lambda content: matrix(content, "hopper first"),
    "rates": lambda content: matrix(content, "rates"),
    "predicted": predicted,
    "prototype": lambda content: matrix(content, "prototype"),
    "waits": lambda content: matrix(content, "waits"),
}


def tables(name: str) -> list[tuple[dict, list[str], list[list[str]]]]:
    """(content, head, lines) of each file that has measurements for the table `name`."""
    if name == "model":
        return [(content, *accuracy(content)) for content in map(check, MEASUREMENTS)]
    found = []
    for content in contents():
        if any(_belongs(one, name) for one in content["measurements"]):
            found.append((content, *TABLES[name](content)))
    return found


def _belongs(one: dict, name: str) -> bool:
    return "predicted" in one if name == "predicted" else one["group"] == name
