"""A comparison as a self-contained HTML file with images, style and script."""

import base64
import hashlib
import io
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from PIL import Image

from espan import __version__
from espan.comparison.panes import Comparison, Pane
from espan.evaluation.benchmark import COLUMNS
from espan.system.atomic import whole_file

TITLES = {
    "psnr_y": "PSNR Y, dB",
    "ssim_y": "SSIM Y",
    "psnr_rgb": "PSNR RGB, dB",
    "ssim_rgb": "SSIM RGB",
}
_PANES = "<!-- panes -->"  # cannot occur in names, which are escaped


def write_page(path: Path, comparison: Comparison) -> None:
    """Writes the page; raises OutputError if that fails."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_pieces(comparison))


def score_text(column: str, value: float) -> str:
    """A score as text; the PSNR of equal images is infinite."""
    if value == float("inf"):
        return "equal"
    return f"{value:.2f}" if column.startswith("psnr") else f"{value:.4f}"


def _pieces(comparison: Comparison) -> Iterator[str]:
    """Yields the page in pieces with one image each."""
    height, width = comparison.panes[0].pixels.shape[:2]
    low = f"{width // comparison.scale} &times; {height // comparison.scale}"
    script = _asset("viewer.js") + _asset("compare.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = Template(_asset("compare.html")).substitute(
        name=escape(comparison.name),
        scale=comparison.scale,
        size=f"{low} pixels become {width} &times; {height}",
        width=width,
        height=height,
        scores=_table(comparison),
        style=_asset("viewer.css") + _asset("compare.css"),
        script=script,
        hash=f"sha256-{digest}",
        version=__version__,
        panes=_PANES,
    )
    head, tail = page.split(_PANES)
    yield head
    for pane in comparison.panes:
        yield _figure(pane)
    yield tail


def _figure(pane: Pane) -> str:
    name = escape(pane.name)
    note = ""
    if pane.scores:
        psnr, ssim = (score_text(column, pane.scores[column]) for column in COLUMNS[:2])
        unit = "" if psnr == "equal" else " dB"
        note = f' <span class="soft">{psnr}{unit}, {ssim}</span>'
    return (
        f'<figure data-name="{name}"><div class="pane" tabindex="0" role="group" '
        f'aria-label="{name}. Plus and minus zoom, arrows move, 0 fits.">'
        f'<img class="exact" alt="{name}" src="{_data_uri(pane)}"></div>'
        f"<figcaption>{name}{note}</figcaption></figure>\n"
    )


def _data_uri(pane: Pane) -> str:
    png = io.BytesIO()
    Image.fromarray(pane.pixels).save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getbuffer()).decode()


def _table(comparison: Comparison) -> str:
    """The table of scores with the best of each column marked; empty without an original."""
    rows = [pane for pane in comparison.panes if pane.scores]
    if not rows:
        return ""
    best = {column: max(pane.scores[column] for pane in rows) for column in COLUMNS}
    head = "".join(f'<th scope="col">{TITLES[column]}</th>' for column in COLUMNS)
    body = ""
    for pane in rows:
        body += f'<tr><th scope="row">{escape(pane.name)}</th>'
        for column, value in pane.scores.items():
            mark = ' class="best"' if value == best[column] else ""
            body += f"<td{mark}>{score_text(column, value)}</td>"
        body += "</tr>"
    against = f"Against the original, {comparison.scale} pixels shaved; more is better."
    return (
        f'<p class="soft" id="against">{against}</p>'
        f'<div class="scroll"><table aria-labelledby="against"><thead><tr><th scope="col"></th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _asset(name: str) -> str:
    return (resources.files("espan") / "pages" / name).read_text(encoding="utf-8")
