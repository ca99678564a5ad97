"""The typed errors of loopwm; each message names the argument, its value and the remedy."""

import importlib
from types import ModuleType


class LoopwmError(Exception):
    """Be the root of every error that loopwm raises on purpose."""


class ConfigError(LoopwmError, ValueError):
    """Report a setting or an argument outside its range."""


class DataError(LoopwmError, ValueError):
    """Report experience that cannot be used: wrong shapes, NaN, too few episodes."""


class EnvironmentUnsupported(LoopwmError, TypeError):
    """Report an environment whose spaces are not supported."""


class StoreError(LoopwmError):
    """Report files that are missing, damaged or of an unknown format."""


class CheckpointError(StoreError):
    """Report a checkpoint that cannot be written, read or resumed."""


class NumericalError(LoopwmError, ArithmeticError):
    """Report NaN or infinity where training cannot go on."""


class MissingExtra(LoopwmError, ImportError):
    """Report an optional dependency that is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Dotted name of the module.
        extra: The extra of this package that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtra: If the module is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f'{module} is needed here and is not installed: pip install "loopwm[{extra}]"'
        ) from error
