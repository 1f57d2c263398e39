"""Notes that `espan upscale` logs before it begins."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espan.sizes import Size, nearest
from espan.system.paths import below, is_folder

if TYPE_CHECKING:
    from espan.batch import FileJob

log = logging.getLogger("espan")

# Below this quality, the plain networks amplify a JPEG's block artifacts.
LEAST_QUALITY = 85
# Headers read for the hint at most, so that large folders start without delay.
MOST_READ = 100


def note_unread(folders: Sequence[str]) -> None:
    """Logs once which image files in the folders have formats that are not supported."""
    from espan.images.files import UNREAD_SUFFIXES

    there = (Path(each) for each in folders)
    found = [
        each.path for path in there if is_folder(path) for each in below(path, UNREAD_SUFFIXES)
    ]
    unread = sorted(each for each in found if not is_folder(each))
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        kinds = ", ".join(sorted({each.suffix.lower() for each in unread}))
        log.info("%s%s: skipped, image format not supported (%s)", unread[0], more, kinds)


def hint_at_web(jobs: "Sequence[FileJob]", model: str, scale: float | Size) -> None:
    """Logs once, at the first strongly compressed JPEG, which network is made for such files.

    Only for the plain built-in networks: another network is the user's own choice.
    """
    from espan.checkpoints.weights import PLAIN, WEB
    from espan.images import files

    if model not in PLAIN.values():
        return
    for job in jobs[:MOST_READ]:
        quality = files.jpeg_quality(job.input)
        if quality is not None and quality < LEAST_QUALITY:
            better = WEB[nearest(scale, [*WEB])]
            log.info("%s: JPEG of quality %d; try -n %s", job.input, quality, better)
            return
