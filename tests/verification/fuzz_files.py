"""Damaged image files: reading each returns an image or raises an EspanError, within a second.

    python -m tests.verification.fuzz_files FOLDER         every file in a folder, by outcome
    python -m tests.verification.fuzz_files --seconds 60   files damaged at random, from --seed on
    python -m tests.verification.fuzz_files --seconds 60 --atheris    the same, guided by coverage

Prints one JSON document; exit code 1 if there were findings. Lines on stderr come from libtiff.
"""

import argparse
import io
import json
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from espan import EspanError
from espan.images import files
from espan.images.image16 import Image16

SLOW = 1.0  # seconds of processor time for one file
# Values for sizes, depths and offsets that may break decoders.
INTERESTING = (
    0,
    1,
    2,
    3,
    7,
    15,
    16,
    32,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    2**31 - 1,
    2**32 - 1,
)
PNG_HEAD = 8


def seeds() -> dict[str, bytes]:
    """{name: a small intact file} for every format."""
    random = np.random.default_rng(0)
    pixels = np.kron(
        random.integers(256, size=(6, 5, 4), dtype=np.uint8), np.ones((4, 4, 1), np.uint8)
    )
    rgba = Image.fromarray(pixels)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA002] = 20
    how = {"exif": exif.tobytes(), "dpi": (72, 72)}
    made = {
        "png": (rgb, "PNG", how),
        "png-alpha": (rgba, "PNG", {}),
        "png-palette": (rgb.quantize(16), "PNG", {"transparency": 3}),
        "jpeg": (rgb, "JPEG", how),
        "jpeg-progressive": (grey, "JPEG", {"progressive": True}),
        "webp": (rgba, "WEBP", {"exif": how["exif"]}),
        "webp-lossless": (rgb, "WEBP", {"lossless": True}),
        "tiff": (rgb, "TIFF", {"dpi": (72, 72), "exif": how["exif"]}),
        "tiff-lzw": (rgba, "TIFF", {"compression": "tiff_lzw"}),
        "gif": (rgb.quantize(16), "GIF", {}),
        "bmp": (rgb, "BMP", {}),
        "bmp-palette": (rgb.quantize(16), "BMP", {}),
        "ppm": (rgb, "PPM", {}),
        "avif": (rgb, "AVIF", {"exif": how["exif"], "speed": 10}),
    }
    whole = {}
    for name, (image, kind, options) in made.items():
        data = io.BytesIO()
        image.save(data, kind, **options)
        whole[name] = data.getvalue()
    with suppress(ImportError):
        import pillow_heif

        data = io.BytesIO()
        pillow_heif.from_pillow(rgb).save(data, exif=how["exif"])
        whole["heic"] = data.getvalue()
    deep = Image16(pixels[..., :3] * np.uint16(257), {"exif": how["exif"]})
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "tif"):
            whole[f"{suffix}-16"] = files.write(Path(folder) / f"a.{suffix}", deep).read_bytes()
    return whole


def overwritten(content: bytes, place: int, value: int, width: int, big: bool) -> bytes:
    """The content with `value` in `width` bytes at `place` (modulo the length)."""
    place %= max(1, len(content) - width + 1)
    field = (value % 256**width).to_bytes(width, "big" if big else "little")
    return content[:place] + field + content[place + width :]


def mended(content: bytes) -> bytes:
    """A PNG with corrected checksums, so that they do not reveal the damage."""
    if content[:4] != b"\x89PNG":
        return content
    out, place = bytearray(content), PNG_HEAD
    while place + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, place)
        end = place + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[place + 4 : end]))
        place = end + 4
    return bytes(out)


def damaged(random: np.random.Generator, whole: dict[str, bytes]) -> bytes:
    """One of the files, damaged in one to four places."""
    content = list(whole.values())[random.integers(len(whole))]
    for _ in range(random.integers(1, 5)):
        place = int(
            random.integers(len(content) if random.random() < 0.3 else min(len(content), 200))
        )
        kind = random.integers(4)
        if kind == 0 and random.random() < 0.5:
            content = content[: max(1, place)]
        elif kind == 1:
            content = overwritten(content, place, int(random.integers(256)), 1, True)
        elif kind == 2:
            part = content[place : place + int(random.integers(1, 40))]
            content = content[:place] + part + content[place:]
        else:
            value = INTERESTING[random.integers(len(INTERESTING))]
            width = int(random.choice([1, 2, 4]))
            content = overwritten(content, place, value, width, bool(random.integers(2)))
    return mended(content) if random.random() < 0.7 else content


def attempt(path: Path) -> tuple[str, float]:
    """(outcome of reading a file, seconds of processor time).

    The outcome is "picture", the name of an EspanError, or, for a finding, of another error.
    """
    began = time.process_time()
    try:
        image = files.read(path)
        if image.width * image.height < 10**5:  # writing must accept the metadata that was read
            for suffix in ("png", "tif"):
                if image.mode != "LA;16":
                    files.write(path.with_suffix("." + suffix), image).unlink()
        outcome = "picture"
    except EspanError as error:
        good = str(error).startswith(f"{path}: ") and "\n" not in str(error)
        outcome = type(error).__name__ if good else f"message: {error!r}"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    return outcome, time.process_time() - began


GOOD = ("picture", "InputError", "AnimatedError", "LimitError")


class Report:
    """Counts of outcomes, the slowest file, findings."""

    def __init__(self) -> None:
        self.outcomes: Counter = Counter()
        self.slowest = (0.0, "")
        self.findings: list[str] = []

    def add(self, path: Path, name: str) -> bool:
        """Reads a file; True if it is a finding."""
        outcome, seconds = attempt(path)
        self.outcomes[outcome.partition(":")[0]] += 1
        self.slowest = max(self.slowest, (seconds, name))
        finding = outcome not in GOOD or seconds > SLOW
        if finding:
            self.findings.append(f"{name}: {outcome}, {seconds:.2f} s")
        return finding

    def as_dict(self) -> dict:
        return {
            "files": self.outcomes.total(),
            "outcomes": dict(self.outcomes.most_common()),
            "slowest_seconds": round(self.slowest[0], 3),
            "slowest_file": self.slowest[1],
            "peak_mib": round(peak() / 2**20),
            "findings": self.findings,
        }


def peak() -> int:
    """Peak memory of this process in bytes; 0 if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def corpus(folder: str | Path) -> dict:
    """Reads every file below a folder: counts per outcome, the slowest file, peak memory."""
    report = Report()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        report.add(path, str(path.relative_to(folder)))
    return report.as_dict()


def at_random(seconds: float, seed: int = 0, keep: Path | None = None) -> dict:
    """Reads files damaged at random for `seconds`; `keep` is a folder for findings."""
    report, whole, end = Report(), seeds(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        while time.monotonic() < end:
            content = damaged(np.random.default_rng(seed), whole)
            path.write_bytes(content)
            if report.add(path, f"seed {seed}") and keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / str(seed)).write_bytes(content)
            seed += 1
    return report.as_dict()


def by_coverage(seconds: float, keep: Path) -> None:
    """Never returns: libFuzzer ends the process and reports findings on stderr."""
    import atheris

    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "a", Path(folder) / "seeds"
        start.mkdir()
        for name, content in seeds().items():
            (start / name).write_bytes(content)

        def one(content: bytes) -> None:
            path.write_bytes(mended(content))
            outcome, took = attempt(path)
            if outcome not in GOOD or took > SLOW:
                raise AssertionError(f"{outcome}, {took:.2f} s")

        options = [f"-max_total_time={seconds:.0f}", "-max_len=4096", "-rss_limit_mb=4096"]
        keep.mkdir(parents=True, exist_ok=True)
        options += [f"-artifact_prefix={keep}/", "-verbosity=0"]
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *options, str(start)], one)
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files with findings")
    parser.add_argument(
        "--atheris", action="store_true", help="guided by coverage of the Python code"
    )
    arguments = parser.parse_args()
    if arguments.atheris:
        by_coverage(arguments.seconds, arguments.keep or Path(tempfile.gettempdir()))
    if arguments.folder:
        report = corpus(arguments.folder)
    else:
        report = at_random(arguments.seconds, arguments.seed, arguments.keep)
    print(json.dumps(report, indent=2))
    return bool(report["findings"])


if __name__ == "__main__":
    sys.exit(main())
