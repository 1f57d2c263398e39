"""`python -m tests.verification.mutations`: how many bugs were planted and caught, as JSON."""

import argparse
import json
import sys

from tests.verification.mutations import SurvivedError, plant, plant_in_cuda
from tests.verification.mutations.kernels import KERNELS
from tests.verification.mutations.outside import OUTSIDE
from tests.verification.mutations.promises import PROMISES

parser = argparse.ArgumentParser(prog="python -m tests.verification.mutations", description=__doc__)
parser.add_argument("--count", type=int, help="only so many of each list")
arguments = parser.parse_args()


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


lists = {
    "kernels": lambda: plant(KERNELS[: arguments.count], tell),
    "cuda": lambda: plant_in_cuda(arguments.count),
    "promises": lambda: plant(PROMISES[: arguments.count], tell),
    "outside": lambda: plant(OUTSIDE[: arguments.count], tell),
}
found, survived = {}, []
for name, run in lists.items():
    try:
        found[name] = run()
    except SurvivedError as error:
        survived.append(f"{name}: {error}")
print(json.dumps(found))
tell("\n".join(survived))
sys.exit(1 if survived else 0)
