"""Packages that only some features need: imported by those, with a line on how to get one."""

from importlib import import_module
from types import ModuleType

from espan.errors import EspanError, InputError


def extra(package: str, what: str, name: str, error: type[EspanError] = InputError) -> ModuleType:
    """The module `package`; without it an `error`: `what` needs it, and it comes with extra `name`.

    A package that is there and does not import is told apart: its own reason follows.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as missing:
        raise error(f"{what} needs {missing.name}: pip install 'espan[{name}]'") from missing
    except ImportError as broken:
        raise error(f"{what}: {package} does not import: {broken}") from broken
