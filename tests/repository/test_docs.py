"""The documents: pages, links, names of tests, and the table of features."""

import re

import pytest

from tests.support import features
from tests.support.documents import FENCE, PAGES, ROOT


def test_every_task_has_a_page():
    pages = {page.name for page in PAGES}
    tasks = {
        "picture",
        "folder",
        "video",
        "page",
        "python",
        "training",
        "ops",
        "cuda",
        "deployment",
    }
    assert {f"{task}.md" for task in tasks} <= pages


def test_links_have_targets():
    for page in PAGES:
        for target, place in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", page.read_text()):
            found = page.parent / target if target else page
            assert found.exists(), f"{page.name} links to {target}"
            assert not place or place in anchors(found.read_text()), f"{page.name}: {place}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_named_tests_exist():
    for page in PAGES:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
            assert (ROOT / file).is_file(), f"{page.name} names {file}"
            assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_every_page_is_linked_from_the_readme():
    readme = PAGES[0].read_text()
    assert not [page.name for page in PAGES[1:] if f"](docs/{page.name}" not in readme]


def test_the_table_of_features_is_current():
    pytest.importorskip("av", reason="the names of video encoders need PyAV")
    readme = features.README.read_text()
    assert features.written(readme) == readme, "run: python -m tests.support.features --write"


def test_a_new_feature_is_in_the_table(monkeypatch):
    pytest.importorskip("av", reason="the names of video encoders need PyAV")
    before = features.table()
    monkeypatch.setattr(features, "BACKENDS", (*features.BACKENDS, "abacus"))
    assert "abacus" in features.table() and "abacus" not in before
    assert all(features.features().values())


@pytest.mark.parametrize("text", ["", "<!-- features -->\n", "<!-- end -->\n<!-- features -->\n"])
def test_a_document_without_markers_for_the_table_is_an_error(text):
    with pytest.raises(ValueError, match="no <!-- features -->"):
        features.written(text)
