"""Drawn patches: flat colours, hard edges, text and pixel art, which photographs do not have.

Drawing has no smoothing, neither at the size of the HR patch nor where it is made smaller: that is
how screens look. What a network makes of such edges and of flat colours at the border of an image
it can only learn from such images.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;!?()+-=/&%#@"
Colour = tuple[int, int, int]


def drawn(patch: int, scale: int, random: np.random.Generator) -> list[np.ndarray]:
    """[LR (patch, patch, 3), HR (scale * patch, scale * patch, 3)], uint8.

    A quarter is pixel art, drawn in LR size and enlarged by repetition; the others are drawn in HR
    size and made smaller by the mean of each LR pixel's box or by taking one pixel of it.
    """
    if random.random() < 0.25:
        small = _picture(patch, random)
        return [small, small.repeat(scale, 0).repeat(scale, 1)]
    # Half of the drawings have their edges between LR pixels.
    large = _picture(scale * patch, random, scale if random.random() < 0.5 else 1)
    if random.random() < 0.5:
        boxes = large.reshape(patch, scale, patch, scale, 3)
        return [np.round(boxes.mean((1, 3))).astype(np.uint8), large]
    # An even scale has no middle pixel: the one before and the one after it in turn.
    middle = int(random.integers(scale - 1, scale + 1)) // 2
    return [np.ascontiguousarray(large[middle::scale, middle::scale]), large]


def _picture(side: int, random: np.random.Generator, grid: int = 1) -> np.ndarray:
    """One drawing, whose rectangles, stripes and lines have corners at multiples of `grid`."""
    image = Image.new("RGB", (side, side), _colour(random))
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # no smoothing of letters; shapes have none
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
    return np.asarray(image)  # of kind 0: one colour alone


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
    """Any colour; in half of the cases one of the eight corners of the cube, black and white."""
    if random.random() < 0.5:
        return _corner(random)
    return tuple(random.integers(256, size=3).tolist())


def _corner(random: np.random.Generator) -> Colour:
    kind = random.integers(4)
    if kind < 2:
        return ((0, 0, 0), (255, 255, 255))[kind]
    return tuple((255 * random.integers(2, size=3)).tolist())
