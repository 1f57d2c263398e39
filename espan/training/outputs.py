"""Outputs of the teachers for full images, computed once and kept in a memory-mapped file."""

import hashlib
import itertools
import json
import logging
from pathlib import Path

import numpy as np

from espan.errors import InputError, OutputError
from espan.system.atomic import remove_leftovers, whole_file
from espan.system.paths import is_file, reason
from espan.training.config import TrainConfig
from espan.training.image_pairs import ImagePairs
from espan.training.teachers import Teachers
from espan.upscaler import Upscaler

log = logging.getLogger("espan")

LEVELS = 65535  # outputs are uint16: rounding errors are 1/500 of an 8-bit level


def add_teacher_outputs(images: ImagePairs, teachers: Teachers | None, fabric) -> ImagePairs:
    """Adds the teachers' outputs to `images`; the first process computes them if they are missing.

    Returns `images` unchanged without teachers or without `teacher_outputs`.
    """
    if teachers is None or teachers.config.teacher_outputs is None:
        return images
    folder = Path(teachers.config.teacher_outputs)
    if fabric.is_global_zero:
        compute_outputs(teachers, images, folder, str(fabric.device))
    fabric.barrier()
    return load_outputs(teachers, images, folder)


def compute_outputs(teachers: Teachers, images: ImagePairs, folder: Path, device: str) -> None:
    """Computes the mean output of `teachers` for all LR images, unless `folder` has them.

    Raises OutputError if the folder cannot be written to.
    """
    data, index = _paths(teachers, folder)
    if is_file(index) and is_file(data):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder}: cannot write to this folder: {reason(error)}") from error
    remove_leftovers(folder)
    count = len(images.pairs)
    log.warning("%s: computing the teachers' outputs for %d images", data, count)
    upscalers = [Upscaler(net, device=device, dtype="fp32") for net in teachers.nets]
    index.unlink(missing_ok=True)
    with whole_file(data) as temporary, temporary.open("wb") as file:
        for lr, *_ in images.pairs:
            x = lr.astype(np.float32) / 255
            mean = np.mean([_output(upscaler, x, teachers.config) for upscaler in upscalers], 0)
            file.write(np.round(mean * LEVELS).astype(np.uint16).tobytes())
    about = {"pictures": _digest(images), "count": count, "folder": str(images.folder)}
    with whole_file(index) as temporary:
        temporary.write_text(json.dumps(about | {"teachers": teachers.config.teacher}))


def load_outputs(teachers: Teachers, images: ImagePairs, folder: Path) -> ImagePairs:
    """Adds the kept output (scale * H, scale * W, 3), uint16, to each pair of `images`.

    Raises InputError if the file is damaged, or belongs to other images.
    """
    data, index = _paths(teachers, folder)
    try:
        about = json.loads(index.read_text())
        outputs = np.memmap(data, np.uint16, "r")
        digest, was = about["pictures"], f"{about['count']} images of {about['folder']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{data}: cannot read the outputs of teachers: {error}; remove it"
        ) from error
    if digest != _digest(images):
        now = f"{len(images.pairs)} of {images.folder}"
        raise InputError(
            f"{data}: teachers' outputs for the {was}, not for the {now}; "
            "remove it or choose another teacher_outputs"
        )
    sizes = [hr.size for _, hr, *_ in images.pairs]
    if outputs.size != sum(sizes):
        raise InputError(f"{data}: its size does not match the images; remove it")
    parts = np.split(outputs, np.cumsum(sizes)[:-1])
    return images.with_teacher_outputs(
        [part.reshape(hr.shape) for part, (_, hr, *_) in zip(parts, images.pairs, strict=True)]
    )


def _output(upscaler: Upscaler, x: np.ndarray, config: TrainConfig) -> np.ndarray:
    """The output of a teacher, (H, W, 3) to (scale * H, scale * W, 3), in float64.

    `teacher_ensemble` averages over the eight flips and rotations of the image, each undone after
    upscaling: the geometric self-ensemble of EDSR (Lim et al., CVPRW 2017).
    """
    outputs = []
    for flip, turns in (
        itertools.product((1, -1), range(4)) if config.teacher_ensemble else [(1, 0)]
    ):
        changed = np.ascontiguousarray(np.rot90(x[:, ::flip], turns))
        large = upscaler(changed, config.scale).astype(np.float64)
        outputs.append(np.rot90(large, -turns)[:, ::flip])
    return np.mean(outputs, 0)


def _paths(teachers: Teachers, folder: Path) -> tuple[Path, Path]:
    ensemble = "-ensemble" if teachers.config.teacher_ensemble else ""
    name = f"teachers-x{teachers.config.scale}-{teachers.key()}{ensemble}"
    return folder / f"{name}.bin", folder / f"{name}.json"


def _digest(images: ImagePairs) -> str:
    """Digest of the LR images in order, the only input of the outputs."""
    digest = hashlib.sha256()
    for lr, *_ in images.pairs:
        digest.update(f"{lr.shape}".encode() + lr.tobytes())
    return digest.hexdigest()
