"""CMYK becomes sRGB through a colour profile: without one its numbers are no colours."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageCms

from espan.errors import InputError

# Where systems keep profiles, and what the common ones for offset printing are called, best first.
_FOLDERS = ("/usr/share/color/icc", "/usr/local/share/color/icc", "/Library/ColorSync/Profiles")
_NAMES = (
    "PSOcoated_v3.icc",
    "ISOcoated_v2_eci.icc",
    "ISOcoated_v2_300_eci.icc",
    "FOGRA39L_coated.icc",
    "SWOP2006_Coated3v2.icc",
    "default_cmyk.icc",
)


def to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """(the image in RGB, with sRGB for its profile; the name of the profile it went through).

    InputError for a profile that is damaged or of another colour space, and where the image has
    none and the system no standard one.
    """
    embedded = image.info.get("icc_profile")
    source = BytesIO(embedded) if embedded else _standard()
    try:
        profile = ImageCms.ImageCmsProfile(source)
        space = profile.profile.xcolor_space.strip()
        if space != "CMYK":
            raise InputError(f"CMYK with a colour profile of {space}")
        name = (profile.profile.profile_description or "without a name").strip()
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        result = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"CMYK with a colour profile that cannot be used: {said}") from error
    assert result is not None  # it is None only where the image itself is changed
    result.info = {**image.info, "icc_profile": srgb.tobytes()}
    return result, name


def _standard() -> str:
    """The file of the first standard profile that the system has."""
    for name in _NAMES:
        for folder in map(Path, _FOLDERS):
            for path in sorted(folder.rglob(name)):
                return str(path)
    raise InputError(
        "CMYK without a colour profile, and this system has no standard one "
        f"({', '.join(_NAMES)}); convert it to RGB first"
    )
