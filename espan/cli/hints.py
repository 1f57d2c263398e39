"""What `espan upscale` has to say before it begins."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espan.sizes import Size, nearest
from espan.system.paths import below, is_folder

if TYPE_CHECKING:
    from espan.batch import FileJob

log = logging.getLogger("espan")

# Under this quality the plain networks enlarge the blocks of a JPEG rather than the picture.
LEAST_QUALITY = 85
# Files whose headers are read for it: a folder's work does not wait for all of them.
LOOKED_AT = 100


def note_unread(folders: Sequence[str]) -> None:
    """Says once which files in the folders are pictures of kinds that are not read."""
    from espan.images.files import UNREAD_SUFFIXES

    there = (Path(each) for each in folders)
    found = [
        each.path for path in there if is_folder(path) for each in below(path, UNREAD_SUFFIXES)
    ]
    unread = sorted(each for each in found if not is_folder(each))
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        kinds = ", ".join(sorted({each.suffix.lower() for each in unread}))
        log.info("%s%s: left out, as such pictures are not read (%s)", unread[0], more, kinds)


def hint_at_web(jobs: "Sequence[FileJob]", model: str, scale: float | Size) -> None:
    """Says once, of the first JPEG that is compressed hard, which network is made for such files.

    Only where a plain built-in network is used: who names another one knows why.
    """
    from espan.checkpoints.weights import PLAIN, WEB
    from espan.images import files

    if model not in PLAIN.values():
        return
    for job in jobs[:LOOKED_AT]:
        quality = files.jpeg_quality(job.input)
        if quality is not None and quality < LEAST_QUALITY:
            better = WEB[nearest(scale, [*WEB])]
            log.info("%s: JPEG of quality %d; try -n %s", job.input, quality, better)
            return
