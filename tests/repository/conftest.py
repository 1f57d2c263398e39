"""The fixture of the documents' tests."""

import pytest

from tests.support.documents import make_desk


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """A folder with a user's files, in which the documents' commands run."""
    return make_desk(tmp_path_factory.mktemp("desk"))
