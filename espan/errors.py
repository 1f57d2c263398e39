"""Every error a caller may want to tell apart; the message names the file, expected and found."""


class EspanError(Exception):
    """Base of all errors raised on purpose by this package."""


class InputError(EspanError, ValueError):
    """An image or an argument that cannot be used as it is."""


class LimitError(InputError):
    """Larger than a limit: the pixels of an image, or the memory that a run would need."""


class NonFiniteError(InputError):
    """NaN or infinity where a pixel value should be."""


class OutputError(EspanError, OSError):
    """A result that could not be written, or that its format cannot hold."""


class WeightsError(EspanError, ValueError):
    """A weights file that is missing, damaged, or holds no network known here."""


class DeviceError(EspanError, RuntimeError):
    """A device, dtype or backend that this machine does not have, or has lost."""


class DeviceLostError(DeviceError):
    """A GPU on which work failed: no later work of this process can succeed there."""
