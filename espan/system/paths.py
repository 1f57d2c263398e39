"""What a name given by a user stands for, even one that no file can have."""

from pathlib import Path


def is_folder(path: Path) -> bool:
    """False too for what cannot be a name at all: reading or writing it will say why."""
    try:
        return path.is_dir()
    except OSError:
        return False


def names_folder(output: str | Path) -> bool:
    """Whether results go into `output`: it is a folder, or ends as only a folder's name does."""
    return str(output).endswith(("/", "\\")) or is_folder(Path(output))
