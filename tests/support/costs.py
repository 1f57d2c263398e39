"""Compiled costs as the files that keep them have them."""

import json


def as_text(tool: str, version: str, costs: dict) -> str:
    """JSON with one architecture a line, so that a change shows as its line."""
    rows = []
    for key, architectures in costs.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(c)}" for name, c in architectures.items()]
        rows.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
    return f'{{\n  "{tool}": "{version}",\n' + ",\n".join(rows) + "\n}"
