"""Damaged image files: an image or an EspanError that names the file, within a second."""

import struct

import pytest

from espan import InputError
from espan.images import files
from tests.verification import fuzz_files

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

WHOLE = fuzz_files.seeds()
# (place, value, bytes, big-endian); sizes, depths, offsets and counts are in the first 300 bytes.
FIELD = st.tuples(
    st.integers(0, 300),
    st.sampled_from(fuzz_files.INTERESTING),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)
FLIP = st.tuples(st.integers(0, 2000), st.integers(0, 255), st.just(1), st.just(True))


@pytest.fixture(scope="module")
def report():
    """The outcomes of all examples."""
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
def test_no_other_error_and_less_than_a_second(tmp_path_factory, report, name, damage, kept, mend):
    content = WHOLE[name]
    for place, value, width, big in damage:
        content = fuzz_files.overwritten(content, place, value, width, big)
    content = content[: int(len(content) * kept)]
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(fuzz_files.mended(content) if mend else content)
    assert not report.add(path, name), report.findings


def test_some_examples_are_read_and_some_refused(report):
    outcomes = report.outcomes
    assert outcomes["InputError"] > 50 and outcomes["picture"] > 20


def test_intact_files_are_read(tmp_path):
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


def test_a_gif_that_ends_at_its_second_frame(tmp_path):
    # Found by coverage: Pillow raises IndexError.
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 4, 4, 0)
    content = WHOLE["gif"][:-1] + frame
    (tmp_path / "a.gif").write_bytes(content)
    with pytest.raises(InputError, match="damaged or truncated"):
        files.read(tmp_path / "a.gif")


def retyped(content: bytes, tag: int, kind: int, count: int) -> bytes:
    """A little-endian TIFF with another value type for `tag`."""
    changed = bytearray(content)
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", content, entry) == (tag,):
            struct.pack_into("<HI", changed, entry + 2, kind, count)
            return bytes(changed)
    raise AssertionError(f"the file has no tag {tag}")


# Text as the resolution, a fraction as the maker of the camera.
@pytest.mark.parametrize(("tag", "kind", "count"), [(282, 2, 4), (0x010F, 5, 1)])
def test_metadata_of_the_wrong_type_does_not_stop_reading(tmp_path, tag, kind, count):
    (tmp_path / "a.tif").write_bytes(retyped(WHOLE["tiff"], tag, kind, count))
    image = files.read(tmp_path / "a.tif")
    for suffix in ("png", "tif"):
        again = files.read(files.write(tmp_path / f"b.{suffix}", image))
        if tag == 282:
            assert again.info.get("dpi", (1, 1)) == (1, 1)  # Pillow's value for none
        else:
            assert again.size == image.size
