"""Picture files damaged every way: a picture or an EspanError that names the file, in a second."""

import struct

import pytest

from bench import fuzz_files
from espan import InputError, files

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

WHOLE = fuzz_files.seeds()
# (place, value, bytes, big-endian): sizes, depths, offsets and counts lie in the first 300 bytes.
FIELD = st.tuples(
    st.integers(0, 300),
    st.sampled_from(fuzz_files.INTERESTING),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)
FLIP = st.tuples(st.integers(0, 2000), st.integers(0, 255), st.just(1), st.just(True))


@pytest.fixture(scope="module")
def report():
    """What came of all examples together."""
    return fuzz_files.Report()


@hypothesis.settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(
    name=st.sampled_from(sorted(WHOLE)),
    damage=st.lists(FIELD | FLIP, min_size=0, max_size=4),
    kept=st.floats(0.02, 1) | st.just(1.0),
    mend=st.booleans(),
)
def test_no_other_error_and_no_second(tmp_path_factory, report, name, damage, kept, mend):
    content = WHOLE[name]
    for place, value, width, big in damage:
        content = fuzz_files.overwritten(content, place, value, width, big)
    content = content[: int(len(content) * kept)]
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(fuzz_files.mended(content) if mend else content)
    assert not report.add(path, name), report.findings


def test_the_examples_were_neither_all_whole_nor_all_refused(report):
    outcomes = report.outcomes
    assert outcomes["InputError"] > 50 and outcomes["picture"] > 20


def test_whole_files_are_pictures(tmp_path):
    for name, content in WHOLE.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert fuzz_files.attempt(path)[0] == "picture", name


def test_a_finding_is_found(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(WHOLE["gif"])
    assert fuzz_files.corpus(tmp_path)["findings"] == []

    def broken(path):
        raise KeyError("no such thing")

    monkeypatch.setattr(files, "read", broken)
    counts = fuzz_files.corpus(tmp_path)
    assert counts["outcomes"] == {"KeyError": 1} and "a: KeyError" in counts["findings"][0]


def test_gif_that_ends_where_a_second_frame_begins(tmp_path):
    # Found by coverage: Pillow raises IndexError.
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 4, 4, 0)
    content = WHOLE["gif"][:-1] + frame
    (tmp_path / "a.gif").write_bytes(content)
    with pytest.raises(InputError, match="damaged or truncated"):
        files.read(tmp_path / "a.gif")


def test_text_where_a_tiff_has_its_resolution(tmp_path):
    # Found at random: the picture is read, and what cannot be written of it is left out.
    content = bytearray(WHOLE["tiff"])
    (directory,) = struct.unpack_from("<I", content, 4)
    for entry in range(directory + 2, len(content) - 12, 12):
        tag, kind = struct.unpack_from("<HH", content, entry)
        if (tag, kind) == (282, 5):
            struct.pack_into("<HI", content, entry + 2, 2, 4)  # four characters
            break
    else:
        pytest.fail("the file has no resolution")
    (tmp_path / "a.tif").write_bytes(content)
    picture = files.read(tmp_path / "a.tif")
    for suffix in ("png", "tif"):
        again = files.read(files.write(tmp_path / f"b.{suffix}", picture))
        assert again.info.get("dpi", (1, 1)) == (1, 1)  # what Pillow says of none
