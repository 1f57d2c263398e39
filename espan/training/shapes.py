"""Drawn patches: flat colours, hard edges, text and pixel art, which photographs lack.

Neither drawing nor downscaling smooths, as on screens. A network learns such edges, and flat
colours at the border of an image, only from such images.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;!?()+-=/&%#@"
Colour = tuple[int, int, int]


def drawn(patch: int, scale: int, random: np.random.Generator) -> list[np.ndarray]:
    """Draws [LR (patch, patch, 3), HR (scale * patch, scale * patch, 3)], uint8.

    A quarter is pixel art, drawn at LR size and enlarged by repetition; the rest is drawn at HR
    size and downscaled by box mean or by subsampling.
    """
    if random.random() < 0.25:
        small = _drawing(patch, random)
        return [small, small.repeat(scale, 0).repeat(scale, 1)]
    # Half of the drawings have edges only between LR pixels.
    large = _drawing(scale * patch, random, scale if random.random() < 0.5 else 1)
    if random.random() < 0.5:
        boxes = large.reshape(patch, scale, patch, scale, 3)
        return [np.round(boxes.mean((1, 3))).astype(np.uint8), large]
    # An even scale has no middle pixel: picks one of the two next to it.
    middle = int(random.integers(scale - 1, scale + 1)) // 2
    return [np.ascontiguousarray(large[middle::scale, middle::scale]), large]


def _drawing(side: int, random: np.random.Generator, grid: int = 1) -> np.ndarray:
    """A drawing whose rectangles, stripes and lines have corners at multiples of `grid`."""
    image = Image.new("RGB", (side, side), _colour(random))
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # no anti-aliasing of text; shapes never have it
    kind = random.integers(5)
    if kind == 1:  # a step
        at, end = _place(side, random, grid), side
        box = (at, 0, end, end) if random.random() < 0.5 else (0, at, end, end)
        draw.rectangle(box, fill=_colour(random))
    elif kind == 2:
        _stripes(draw, side, random, grid)
    elif kind == 3:
        for _ in range(int(random.integers(1, 8))):
            _shape(draw, side, random, grid)
    elif kind == 4:
        _text(draw, side, random)
    return np.asarray(image)  # kind 0: a single colour


def _stripes(draw: ImageDraw.ImageDraw, side: int, random: np.random.Generator, grid: int) -> None:
    width = grid * int(random.integers(1, max(side // grid // 4, 2)))
    colour, across = _colour(random), random.random() < 0.5
    for at in range(0, side, 2 * width):
        ends = at, 0, at + width - 1, side
        draw.rectangle(ends if across else (ends[1], ends[0], ends[3], ends[2]), fill=colour)


def _shape(draw: ImageDraw.ImageDraw, side: int, random: np.random.Generator, grid: int) -> None:
    colour, kind = _colour(random), random.integers(4)
    x, y, *end = (_place(side, random, grid) for _ in range(4))
    box = min(x, end[0]), min(y, end[1]), max(x, end[0]) - 1, max(y, end[1]) - 1
    if kind == 0:
        draw.polygon([tuple(random.integers(side, size=2).tolist()) for _ in range(3)], fill=colour)
    elif kind == 1:
        draw.line((x, y, *end), fill=colour, width=grid * int(random.integers(1, 4)))
    elif box[0] < box[2] and box[1] < box[3]:
        (draw.ellipse if kind == 2 else draw.rectangle)(box, fill=colour)


def _text(draw: ImageDraw.ImageDraw, side: int, random: np.random.Generator) -> None:
    font = ImageFont.load_default(int(random.integers(8, max(side // 3, 9))))
    colour = _colour(random)
    y = -int(random.integers(8))
    while y < side:
        line = "".join(random.choice(list(LETTERS + " " * 8), side // 4))
        draw.text((-int(random.integers(8)), y), line, fill=colour, font=font)
        y += int(font.getbbox("Ag")[3] * 1.3)


def _place(side: int, random: np.random.Generator, grid: int) -> int:
    return grid * int(random.integers(side // grid + 1))


def _colour(random: np.random.Generator) -> Colour:
    """A random colour; half of the time a corner of the RGB cube, mostly black or white."""
    if random.random() < 0.5:
        return _corner(random)
    return tuple(random.integers(256, size=3).tolist())


def _corner(random: np.random.Generator) -> Colour:
    kind = random.integers(4)
    if kind < 2:
        return ((0, 0, 0), (255, 255, 255))[kind]
    return tuple((255 * random.integers(2, size=3)).tolist())
