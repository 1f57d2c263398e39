"""What the tests of the documents share."""

import pytest

from tests.support.documents import make_desk


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """A user's folder, in which the documents' commands run."""
    return make_desk(tmp_path_factory.mktemp("desk"))
