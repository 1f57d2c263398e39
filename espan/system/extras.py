"""Lazy imports of optional packages, with errors that say how to install them."""

from importlib import import_module
from types import ModuleType

from espan.errors import EspanError, InputError


def extra(package: str, what: str, name: str, error: type[EspanError] = InputError) -> ModuleType:
    """Imports `package`, which `what` needs and extra `name` installs; raises `error` without it.

    If the package is installed but fails to import, the error has the reason.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as missing:
        raise error(f"{what} needs {missing.name}: pip install 'espan[{name}]'") from missing
    except ImportError as broken:
        raise error(f"{what}: {package} does not import: {broken}") from broken
