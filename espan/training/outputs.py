"""Outputs of the teachers for whole pictures, computed once and kept in a memory-mapped file."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np

from espan.errors import InputError, OutputError
from espan.system.atomic import remove_leftovers, whole_file
from espan.system.paths import is_file, reason
from espan.training.pictures import Pictures
from espan.training.teachers import Teachers
from espan.upscaler import Upscaler

log = logging.getLogger("espan")

LEVELS = 65535  # outputs are uint16: half a level is a five-hundredth of one of 8 bits


def taught(pictures: Pictures, teachers: Teachers | None, fabric) -> Pictures:
    """`pictures` with the outputs of their teachers, computed first where need be, by one process.

    As they are without teachers, or where the outputs are not to be kept.
    """
    if teachers is None or teachers.config.teacher_outputs is None:
        return pictures
    folder = Path(teachers.config.teacher_outputs)
    if fabric.is_global_zero:
        keep(teachers, pictures, folder, str(fabric.device))
    fabric.barrier()
    return with_outputs(teachers, pictures, folder)


def keep(teachers: Teachers, pictures: Pictures, folder: Path, device: str) -> None:
    """Computes the mean output of `teachers` for every LR picture, unless `folder` has it.

    Raises OutputError for a folder that cannot be written to.
    """
    data, index = _paths(teachers, folder)
    if is_file(index) and is_file(data):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder}: not a folder to write to: {reason(error)}") from error
    remove_leftovers(folder)
    count, scale = len(pictures.pairs), teachers.config.scale
    log.warning("%s: computing the teachers' outputs for %d pictures", data, count)
    upscalers = [Upscaler(net, device=device, dtype="fp32") for net in teachers.nets]
    index.unlink(missing_ok=True)
    with whole_file(data) as temporary, temporary.open("wb") as file:
        for lr, *_ in pictures.pairs:
            x = lr.astype(np.float32) / 255
            outputs = [upscaler(x, scale).astype(np.float64) for upscaler in upscalers]
            mean = sum(outputs) / len(outputs)
            file.write(np.round(mean * LEVELS).astype(np.uint16).tobytes())
    about = {"pictures": _digest(pictures), "count": count, "folder": str(pictures.folder)}
    with whole_file(index) as temporary:
        temporary.write_text(json.dumps(about | {"teachers": teachers.config.teacher}))


def with_outputs(teachers: Teachers, pictures: Pictures, folder: Path) -> Pictures:
    """`pictures`, each with its kept output (scale * H, scale * W, 3), uint16, as the third part.

    Raises InputError where the file is damaged, or of other pictures.
    """
    data, index = _paths(teachers, folder)
    try:
        about = json.loads(index.read_text())
        outputs = np.memmap(data, np.uint16, "r")
        digest, was = about["pictures"], f"{about['count']} pictures of {about['folder']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{data}: not outputs of teachers: {error}; remove it") from error
    if digest != _digest(pictures):
        now = f"{len(pictures.pairs)} of {pictures.folder}"
        raise InputError(
            f"{data}: teachers' outputs for the {was}, not for the {now}; "
            "remove it or choose another teacher_outputs"
        )
    sizes = [hr.size for _, hr, *_ in pictures.pairs]
    if outputs.size != sum(sizes):
        raise InputError(f"{data}: not of the size of its pictures; remove it")
    parts = np.split(outputs, np.cumsum(sizes)[:-1])
    return pictures.with_third(
        [part.reshape(hr.shape) for part, (_, hr, *_) in zip(parts, pictures.pairs, strict=True)]
    )


def _paths(teachers: Teachers, folder: Path) -> tuple[Path, Path]:
    name = f"teachers-x{teachers.config.scale}-{teachers.key()}"
    return folder / f"{name}.bin", folder / f"{name}.json"


def _digest(pictures: Pictures) -> str:
    """Of the LR pictures in their order: the outputs depend on nothing else."""
    digest = hashlib.sha256()
    for lr, *_ in pictures.pairs:
        digest.update(f"{lr.shape}".encode() + lr.tobytes())
    return digest.hexdigest()
