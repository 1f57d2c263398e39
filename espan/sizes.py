"""Sizes of results: a scale, or a `Size` from which the scale of each image is computed.

A network upscales by a fixed integer scale. Larger scales take several passes, and results of
scales in between are filtered down: see `passes`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias

from espan.errors import InputError, LimitError, short

# Beyond this scale, nearly all of the result would be invented by the network.
LARGEST = 64
# The arguments of Size, of which exactly one is given.
NAMES = ("width", "height", "fit", "max_side")


@dataclass(frozen=True)
class Size:
    """The target size of images of any size; keeps their proportions.

    Exactly one of `width`, `height`, `fit` and `max_side` is given. If an image gets smaller, an
    antialiased bicubic filter is used instead of the network.

    Args:
        width: columns of the result.
        height: rows of the result.
        fit: (width, height) of the box that the result fits into.
        max_side: maximum pixels of a side; smaller results are `scale` times as large.
        scale: scale for `max_side`; None is the network's own scale.

    Raises:
        InputError: a size is not a whole number of 1 or more, `scale` is not in 1..64, or not
            exactly one size is given.
    """

    width: int | None = None
    height: int | None = None
    fit: tuple[int, int] | None = None
    max_side: int | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in NAMES if getattr(self, name) is not None]
        for name in set(given) - {"fit"}:
            if not _is_side(getattr(self, name)):
                got = short(getattr(self, name))
                raise InputError(f"{name}: expected a whole number of 1 or more, got {got}")
        if self.fit is not None:
            box = self.fit
            if not isinstance(box, tuple | list) or len(box) != 2 or not all(map(_is_side, box)):
                raise InputError(f"fit: expected (width, height), got {short(box)}")
            object.__setattr__(self, "fit", tuple(box))
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise InputError(f"size: expected one of {', '.join(NAMES)}, got {got}")
        if self.scale is not None:
            if self.max_side is None:
                raise InputError(f"scale: cannot be given with {given[0]}, which determines it")
            object.__setattr__(self, "scale", _number(self.scale))

    def of(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) of the result of an image.

        Args:
            width: columns of the image.
            height: rows of the image.

        Returns:
            Width and height, at least 1 each.

        Raises:
            LimitError: the scale would be larger than 64.
        """
        if self.max_side and self.scale:
            larger = result_size(self.scale, (width, height))
            if max(larger) <= self.max_side:
                return larger
        wanted, side = self._side_of(width, height)
        # Rounds half up, in integer arithmetic.
        across, down = (
            max(1, (2 * each * wanted + side) // (2 * side)) for each in (width, height)
        )
        if across > LARGEST * width or down > LARGEST * height:
            raise LimitError(
                f"{width} x {height} pixels cannot become {across} x {down}: the scale is at most "
                f"{LARGEST}"
            )
        return across, down

    def _side_of(self, width: int, height: int) -> tuple[int, int]:
        """Returns (a side of the result, the same side of the image)."""
        if self.max_side:
            return self.max_side, max(width, height)
        if self.fit:
            across, down = self.fit
            return (across, width) if across * height <= down * width else (down, height)
        return (self.width, width) if self.width else (self.height or 1, height)


Scale: TypeAlias = float | Size | None


def from_text(given: Mapping[str, str | None], scale: float | None) -> Scale:
    """Parses user input: `given` maps fields of Size to text or None; all None returns `scale`."""
    fields: dict[str, Any] = {}
    for name in NAMES:
        text = given.get(name)
        if text is None:
            continue
        numbers = [int(each) for each in re.findall(r"[0-9]+", text[:20])]
        if not re.fullmatch("[0-9]{1,9}x[0-9]{1,9}" if name == "fit" else "[0-9]{1,9}", text):
            what = "WIDTHxHEIGHT, as 1920x1080" if name == "fit" else "a whole number of 1 or more"
            raise InputError(f"{name}: expected {what}, got {short(text)}")
        fields[name] = (numbers[0], numbers[1]) if name == "fit" else numbers[0]
    return Size(**fields, scale=scale) if fields else scale


def check_scale(scale: Any, own: int) -> float | Size:
    """Returns `scale`, or `own`, the network's scale, if it is None.

    Raises InputError if it is neither a number from 1 to LARGEST nor a Size.
    """
    if isinstance(scale, Size):
        lacks_scale = scale.max_side is not None and scale.scale is None
        return replace(scale, scale=own) if lacks_scale else scale
    return own if scale is None else _number(scale)


def result_size(scale: float | Size, size: Sequence[int]) -> tuple[int, int]:
    """(width, height) of the result of an image of `size`, (width, height)."""
    width, height = size
    if isinstance(scale, Size):
        return scale.of(width, height)
    return round(width * scale), round(height * scale)


def passes(size: Sequence[int], target: Sequence[int], own: int) -> list[tuple[int, int]]:
    """The (height, width) after each pass of a network of scale `own` from `size` to `target`.

    Each intermediate size is the smallest from which one more pass reaches the next size; the
    network's result is filtered down to it (docs/decisions.md). Empty if the target is smaller than
    the image: downscaling does not use the network.
    """
    height, width = target
    if height <= size[0] and width <= size[1] and (height, width) != tuple(size):
        return []
    sizes = [(height, width)]
    while sizes[0][0] > own * size[0] or sizes[0][1] > own * size[1]:
        sizes.insert(0, (-(-sizes[0][0] // own), -(-sizes[0][1] // own)))
    return sizes


def nearest(scale: float | Size | None, scales: Sequence[int]) -> int:
    """The smallest of `scales` that is at least `scale`, or else the largest.

    A Size gets the largest, since its scale differs from image to image.
    """
    number = scale.scale if isinstance(scale, Size) else scale
    able = [each for each in scales if number is not None and each >= number]
    return min(able, default=max(scales))


def scale_text(scale: float | Size) -> str:
    """`scale` for messages: "x4", "to a width of 1920"."""
    if not isinstance(scale, Size):
        return f"x{scale:g}"
    if scale.fit:
        return "to fit {} x {}".format(*scale.fit)
    if scale.max_side:
        return f"to at most {scale.max_side} a side"
    return f"to a width of {scale.width}" if scale.width else f"to a height of {scale.height}"


def tag(scale: float | Size) -> str:
    """`scale` for names of results: "x4", "w1920", "1920x1080"."""
    if not isinstance(scale, Size):
        return f"x{scale:g}"
    if scale.fit:
        return "{}x{}".format(*scale.fit)
    if scale.max_side:
        return f"max{scale.max_side}"
    return f"w{scale.width}" if scale.width else f"h{scale.height}"


def result_name(template: str, stem: str, scale: float | Size) -> str:
    """Fills a template with {stem} and {scale}; raises InputError if it is invalid."""
    plain = f"{scale:g}" if not isinstance(scale, Size) else tag(scale)
    name = template.replace("{scale}", plain).replace("{stem}", "\0")
    if not template or set(name) & set("{}/\\"):
        raise InputError(
            f"name: expected text with {{stem}} and {{scale}}, no other braces and no folder, got "
            f"{short(template)}"
        )
    return name.replace("\0", stem)


def _number(scale: Any) -> float:
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise InputError(f"scale: expected a number or an espan.Size, got {short(scale)}")
    # Compared before the conversion to float, which fails for huge ints.
    number: Any = scale
    if not 1 <= number <= LARGEST:
        got = f"{number:g}" if isinstance(number, float) else short(number)
        raise InputError(f"scale: expected 1 to {LARGEST}, got {got}")
    return scale if isinstance(scale, int) else float(scale)


def _is_side(value: Any) -> bool:
    return type(value) is int and value >= 1
