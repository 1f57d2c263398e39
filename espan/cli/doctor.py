"""`espan doctor`: checks the installation and prints what this machine offers."""

import argparse
import json

from espan.cli.exits import OK


def add_to(command) -> None:
    doc = command("doctor", run, "Show versions, devices, speed of backends, missing packages.")
    doc.add_argument("--json", action="store_true", help="one JSON document on stdout")
    doc.add_argument("--all", action="store_true", help="also time backends that start slowly")
    doc.add_argument("--paths", action="store_true", help="show names of folders, user and machine")


def run(arguments: argparse.Namespace) -> int:
    from espan.cli.diagnosis import examine

    facts = examine(slow=arguments.all, paths=arguments.paths)
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        print(facts.pop("health"))
        for name, value in facts.items():
            lines = value if isinstance(value, list) else [value]
            print("\n".join(f"{name if i == 0 else '':12} {line}" for i, line in enumerate(lines)))
    return OK
