"""How large a result is to be: a factor, or a size from which each image's own factor follows.

A network enlarges by its own whole factor. What is more goes through it several times, what lies
between is made smaller again: `passes` says where.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias

from espan.errors import InputError, LimitError, short

# What is left of a picture enlarged further than that is the network's invention.
LARGEST = 64
# What a Size is given by.
NAMES = ("width", "height", "fit", "max_side")


@dataclass(frozen=True)
class Size:
    """How large images are to become, whatever size they have; their proportions are kept.

    One of `width`, `height`, `fit` and `max_side` is given. Where it makes an image smaller, an
    antialiased bicubic filter does so without the network.

    Args:
        width: columns of the result.
        height: rows of the result.
        fit: (width, height) of a box into which the result just fits.
        max_side: most pixels of a side; the result is `scale` times larger where that allows.
        scale: with `max_side`: how many times larger; None is the network's own scale.

    Raises:
        InputError: a number is no whole one of 1 or more, `scale` is not from 1 to 64, or not
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
                raise InputError(f"scale: cannot be given with {given[0]}, which it follows from")
            object.__setattr__(self, "scale", _number(self.scale))

    def of(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) of the result of an image.

        Args:
            width: columns of the image.
            height: its rows.

        Returns:
            Width and height, at least 1 each.

        Raises:
            LimitError: the image would become more than 64 times larger.
        """
        if self.max_side and self.scale:
            larger = result_size(self.scale, (width, height))
            if max(larger) <= self.max_side:
                return larger
        wanted, side = self._side_of(width, height)
        # Rounded half up, in whole numbers.
        across, down = (
            max(1, (2 * each * wanted + side) // (2 * side)) for each in (width, height)
        )
        if across > LARGEST * width or down > LARGEST * height:
            raise LimitError(
                f"{width} x {height} pixels cannot become {across} x {down}: at most {LARGEST} "
                "times as many a side"
            )
        return across, down

    def _side_of(self, width: int, height: int) -> tuple[int, int]:
        """What one side of an image becomes, and that side."""
        if self.max_side:
            return self.max_side, max(width, height)
        if self.fit:
            across, down = self.fit
            return (across, width) if across * height <= down * width else (down, height)
        return (self.width, width) if self.width else (self.height or 1, height)


Scale: TypeAlias = float | Size | None


def from_text(given: Mapping[str, str | None], scale: float | None) -> Scale:
    """What somebody wrote: `given` has a Size's fields by name, as text; without any, `scale`."""
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
    """`scale` with None as `own`, the network's scale.

    InputError if it is neither a number from 1 to LARGEST nor a Size.
    """
    if isinstance(scale, Size):
        whole = scale.max_side is not None and scale.scale is None
        return replace(scale, scale=own) if whole else scale
    return own if scale is None else _number(scale)


def result_size(scale: float | Size, size: Sequence[int]) -> tuple[int, int]:
    """(width, height) of the result of an image of `size`, (width, height)."""
    width, height = size
    if isinstance(scale, Size):
        return scale.of(width, height)
    return round(width * scale), round(height * scale)


def passes(size: Sequence[int], target: Sequence[int], own: int) -> list[tuple[int, int]]:
    """The size after each pass of a network of scale `own` from `size` to `target`.

    Each but the last is the least from which one more pass reaches the next: what the network made
    beyond that is filtered away, and the last pass is not (docs/decisions.md). Empty where the
    target is smaller than the image, which no network is asked for.
    """
    height, width = target
    if height <= size[0] and width <= size[1] and (height, width) != tuple(size):
        return []
    sizes = [(height, width)]
    while sizes[0][0] > own * size[0] or sizes[0][1] > own * size[1]:
        sizes.insert(0, (-(-sizes[0][0] // own), -(-sizes[0][1] // own)))
    return sizes


def nearest(scale: float | Size | None, scales: Sequence[int]) -> int:
    """Of the networks' `scales` that of the result, else the next larger one, else the largest.

    For a Size the largest: which factor it asks for is another for each image.
    """
    number = scale.scale if isinstance(scale, Size) else scale
    able = [each for each in scales if number is not None and each >= number]
    return min(able, default=max(scales))


def said(scale: float | Size) -> str:
    """`scale` as messages name it: "x4", "to a width of 1920"."""
    if not isinstance(scale, Size):
        return f"x{scale:g}"
    if scale.fit:
        return "to fit {} x {}".format(*scale.fit)
    if scale.max_side:
        return f"to at most {scale.max_side} a side"
    return f"to a width of {scale.width}" if scale.width else f"to a height of {scale.height}"


def tag(scale: float | Size) -> str:
    """`scale` as names of results have it: "x4", "w1920", "1920x1080"."""
    if not isinstance(scale, Size):
        return f"x{scale:g}"
    if scale.fit:
        return "{}x{}".format(*scale.fit)
    if scale.max_side:
        return f"max{scale.max_side}"
    return f"w{scale.width}" if scale.width else f"h{scale.height}"


def named(template: str, stem: str, scale: float | Size) -> str:
    """The name that a template with {stem} and {scale} makes; InputError if it can be none."""
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
    # Compared before it becomes a float, which has no room for every whole number.
    number: Any = scale
    if not 1 <= number <= LARGEST:
        got = f"{number:g}" if isinstance(number, float) else short(number)
        raise InputError(f"scale: expected 1 to {LARGEST}, got {got}")
    return scale if isinstance(scale, int) else float(scale)


def _is_side(value: Any) -> bool:
    return type(value) is int and value >= 1
