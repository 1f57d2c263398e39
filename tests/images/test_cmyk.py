"""CMYK through its profile, XMP and IPTC."""

import io
import logging

import numpy as np
import pytest
from PIL import Image, ImageCms

from espan import InputError, Upscaler
from espan.cli import main
from espan.images import files
from espan.images.files import cmyk, metadata
from tests.support import profiles
from tests.support.makers import nearest_net, noise

# Inks of 0 and 255 -> their colours in the profile.
COLOURS = {
    (0, 0, 0, 0): (255, 255, 255),
    (255, 0, 0, 0): (0, 255, 255),
    (0, 255, 0, 0): (255, 0, 255),
    (0, 255, 255, 0): (255, 0, 0),
    (0, 0, 0, 255): (0, 0, 0),
}


def write(path, profile=None, **how):
    inks = np.repeat(np.array(list(COLOURS), np.uint8)[None], 8, 0).repeat(8, 1)
    image = Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes())
    if path.suffix == ".jpg":
        how |= {"quality": 100}
    image.save(path, icc_profile=profile, **how)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_srgb_through_its_profile(tmp_path, suffix, caplog):
    path = write(tmp_path / f"a{suffix}", profiles.cmyk(), dpi=(150, 150))
    with caplog.at_level(logging.INFO, "espan"):
        image = files.read(path)
    assert image.mode == "RGB" and image.info["dpi"] == (150, 150)
    for i, expected in enumerate(COLOURS.values()):
        found = np.asarray(image)[4, 8 * i + 4].astype(int)
        assert np.abs(found - expected).max() <= 60, (expected, found)  # cyan is beyond sRGB
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    assert profile.profile.xcolor_space == "RGB "
    assert f"{path}: CMYK, made sRGB through the profile inks of a test" in caplog.text


def test_result_of_cmyk_is_srgb(tmp_path):
    path = write(tmp_path / "a.jpg", profiles.cmyk())
    out = Upscaler(nearest_net(), device="cpu")(path, output=tmp_path / "b.jpg")
    assert Image.open(out).mode == "RGB" and Image.open(out).size == (160, 32)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (profiles.cmyk()[:200], "CMYK with an unusable colour profile"),
        (b"no profile at all", "CMYK with an unusable colour profile"),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), "profile for RGB"),
    ],
    ids=["cut", "garbage", "rgb"],
)
def test_unusable_profiles(tmp_path, profile, reason, weights, capsys):
    path = write(tmp_path / "a.jpg", profile)
    with pytest.raises(InputError, match=reason):
        files.read(path)
    assert main(["upscale", str(path), "--device=cpu", "-n", weights]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"espan: {path}: CMYK with a")
    assert {each.name for each in tmp_path.iterdir()} == {"a.jpg", "weights"}


def test_standard_profile_of_the_system(tmp_path, monkeypatch, caplog):
    path = write(tmp_path / "a.tif")
    monkeypatch.setattr(cmyk, "_FOLDERS", (str(tmp_path / "icc"),))
    with pytest.raises(InputError, match="CMYK without a colour profile, and this system has no"):
        files.read(path)
    (tmp_path / "icc/print").mkdir(parents=True)
    (tmp_path / "icc/print/ISOcoated_v2_eci.icc").write_bytes(profiles.cmyk("coated paper"))
    with caplog.at_level(logging.INFO, "espan"):
        assert files.read(path).mode == "RGB"
    assert "through the profile coated paper" in caplog.text


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:ImageWidth="9" '
    b'tiff:Orientation="6" dc:title="T"><exif:PixelYDimension>6</exif:PixelYDimension>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x05\x00\x05Title"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a.jpg"
    image = Image.fromarray(noise(6, 9, 3))
    image.save(path, xmp=XMP, extra=metadata._photoshop(IPTC))
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "bmp"])
def test_xmp_and_iptc_are_kept_if_the_format_has_room(photo, tmp_path, suffix):
    image = files.read(photo)
    assert image.size == (6, 9)  # rotated as in XMP
    large = image.resize((24, 36))
    large.info = image.info
    again = files.read(files.write(tmp_path / f"b.{suffix}", large))
    packet = again.info.get("xmp", b"")
    if suffix != "bmp":
        assert b'tiff:ImageWidth="24"' in packet and b"Dimension>36<" in packet
        assert b"Orientation" not in packet and b'dc:title="T"' in packet
    assert again.info.get("iptc") == (IPTC if suffix in ("jpg", "tif") else None)


def test_packets_that_are_too_long_or_invalid(tmp_path):
    image = Image.fromarray(noise(4, 4, 3))
    image.info |= {"xmp": b"<x>" + bytes(70_000), "iptc": bytes(70_000)}
    again = files.read(files.write(tmp_path / "a.jpg", image))
    assert "xmp" not in again.info and "iptc" not in again.info
    image.info |= {"xmp": 7, "iptc": b""}
    assert "xmp" not in files.read(files.write(tmp_path / "a.png", image)).info
