"""Converts CMYK to sRGB through a colour profile, without which CMYK values have no meaning."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageCms

from espan.errors import InputError

# Folders of system profiles, and names of common profiles for offset printing, best first.
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
    """Returns (the image in RGB with an sRGB profile, the name of its CMYK profile).

    Raises InputError if the profile is damaged or of another colour space, or if the image has no
    profile and the system no standard one.
    """
    embedded = image.info.get("icc_profile")
    source = BytesIO(embedded) if embedded else _standard()
    try:
        profile = ImageCms.ImageCmsProfile(source)
        space = profile.profile.xcolor_space.strip()
        if space != "CMYK":
            raise InputError(f"CMYK with a colour profile for {space}")
        name = (profile.profile.profile_description or "without a name").strip()
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        result = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"CMYK with an unusable colour profile: {reason}") from error
    assert result is not None  # None is only for in-place conversion
    result.info = {**image.info, "icc_profile": srgb.tobytes()}
    return result, name


def _standard() -> str:
    """Returns the path of the first standard profile on this system."""
    for name in _NAMES:
        for folder in map(Path, _FOLDERS):
            for path in sorted(folder.rglob(name)):
                return str(path)
    raise InputError(
        "CMYK without a colour profile, and this system has no standard one "
        f"({', '.join(_NAMES)}); convert it to RGB first"
    )
