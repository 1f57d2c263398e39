"""A comparison as a PNG: the same crop of all results at full resolution, with labels."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from espan.comparison.page import score_text
from espan.comparison.panes import Comparison, Pane
from espan.evaluation.benchmark import COLUMNS
from espan.images import files

CROP = 360  # largest side of the crops in pixels
GAP, LINE = 16, 22
PAPER, INK, SOFT, MARK = "#ffffff", "#1d2226", "#5b646c", "#e0342b"


def write_sheet(path: Path, comparison: Comparison) -> None:
    """Writes the sheet; raises OutputError if that fails."""
    files.write(path, draw(comparison))


def draw(comparison: Comparison) -> Image.Image:
    """Draws the crops, and before them the full image with the crop marked, if it is larger."""
    left, top, width, height = crop = most_different(comparison)
    cells = []
    for pane in comparison.panes:
        cells.append((_cropped(pane, crop), pane.name, _scores(pane)))
    full = comparison.panes[-1]
    if (height, width) != full.pixels.shape[:2]:
        small = Image.fromarray(full.pixels)
        shrink = min(1, CROP / max(small.size))
        small = small.resize([max(1, round(side * shrink)) for side in small.size])
        box = [round(each * shrink) for each in (left, top, left + width - 1, top + height - 1)]
        ImageDraw.Draw(small).rectangle(box, outline=MARK, width=2)
        cells.insert(0, (small, comparison.name, f"x{comparison.scale}, crop marked"))
    return _lay_out(cells)


def most_different(comparison: Comparison) -> tuple[int, int, int, int]:
    """Left, top, width and height of the crop where the first network differs most from bicubic.

    Tries crops half a crop apart. The full image if it is not larger than a crop.
    """
    network, base = (pane.pixels for pane in (comparison.panes[1], comparison.panes[0]))
    height, width = (min(side, CROP) for side in base.shape[:2])
    best, place = -1.0, (0, 0)
    for top in _starts(base.shape[0], height):
        for left in _starts(base.shape[1], width):
            area = slice(top, top + height), slice(left, left + width)
            difference = np.abs(network[area].astype(np.int16) - base[area]).mean()
            if difference > best:
                best, place = difference, (left, top)
    return *place, width, height


def _starts(side: int, crop: int) -> list[int]:
    return sorted({*range(0, side - crop + 1, max(1, crop // 2)), side - crop})


def _cropped(pane: Pane, crop: tuple[int, int, int, int]) -> Image.Image:
    left, top, width, height = crop
    return Image.fromarray(pane.pixels[top : top + height, left : left + width])


def _scores(pane: Pane) -> str:
    if not pane.scores:
        return ""
    psnr, ssim = (score_text(column, pane.scores[column]) for column in COLUMNS[:2])
    return f"PSNR {psnr}, SSIM {ssim} (Y)"


def _lay_out(cells: list[tuple[Image.Image, str, str]]) -> Image.Image:
    """Arranges the cells in rows of at most four, with as few columns as possible."""
    rows = -(-len(cells) // 4)
    columns = -(-len(cells) // rows)
    width = max(240, *(image.width for image, _, _ in cells))
    height = max(image.height for image, _, _ in cells) + 2 * LINE + GAP // 2
    size = GAP + columns * (width + GAP), GAP + rows * (height + GAP)
    sheet = Image.new("RGB", size, PAPER)
    pen, name_font, note_font = ImageDraw.Draw(sheet), _font(16), _font(14)
    for i, (image, name, note) in enumerate(cells):
        x, y = GAP + i % columns * (width + GAP), GAP + i // columns * (height + GAP)
        sheet.paste(image, (x, y))
        y += max(each.height for each, _, _ in cells) + GAP // 2
        pen.text((x, y), _fit(name, name_font, width), INK, font=name_font)
        pen.text((x, y + LINE), _fit(note, note_font, width), SOFT, font=note_font)
    return sheet


def _font(size: int):
    return ImageFont.load_default(size)


def _fit(text: str, font, width: int) -> str:
    """`text`, with its middle elided if it is wider than `width`."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    kept = len(text)
    shown = text
    while font.getlength(shown) > width and kept > 2:
        kept -= 1
        shown = text[: -(-kept // 2)] + "..." + text[len(text) - kept // 2 :]
    return shown
