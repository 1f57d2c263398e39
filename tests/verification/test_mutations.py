"""Tests of tests: some bugs planted in a copy of the tree are caught, and a harmless change is not.
`python -m tests.verification.mutations` plants all of them."""

import pytest

from tests.verification.mutations import ROOT, Mutation, SurvivedError, plant
from tests.verification.mutations.kernels import KERNELS
from tests.verification.mutations.outside import OUTSIDE
from tests.verification.mutations.promises import PROMISES

ALL = [*KERNELS, *PROMISES, *OUTSIDE]


@pytest.mark.parametrize("mutation", ALL, ids=lambda one: one.promise)
def test_a_mutation_can_be_planted(mutation):
    path = ROOT / mutation.file
    assert path.read_text().count(mutation.old) == 1 and mutation.new != mutation.old
    test = mutation.test.split("[")[0].split("::")
    assert f" {test[-1]}(" in (ROOT / test[0]).read_text() or len(test) == 3


def test_planted_bugs_are_caught():
    assert plant([KERNELS[8], PROMISES[1], OUTSIDE[9]]) == {"planted": 3, "caught": 3}


def test_a_harmless_change_survives():
    harmless = Mutation("nothing", "espan/errors.py", "Base of all", "Root of all", KERNELS[8].test)
    with pytest.raises(SurvivedError, match=r"nothing: espan/errors\.py: 'Base of all'"):
        plant([harmless])
