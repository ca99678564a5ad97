"""The typed errors of loopwm; each message names the argument, its value and the remedy."""

import difflib
import importlib
from collections.abc import Iterable
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


def remedy(name: str, known: Iterable[str], what: str = "known") -> str:
    """Return what to write in place of a name that is unknown: the nearest one, else all there are.

    Args:
        name: The unknown name.
        known: Names that would do.
        what: What those are.
    """
    names = list(known)
    # Upper case for lower is the nearest slip of all.
    folded = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"did you mean {folded[close[0]]!r}?" if close else f"{what}: {', '.join(names)}"


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
        # A package that is there and broken is another matter than one that is missing.
        missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(
            f"{error.name}."
        )
        raise MissingExtra(
            f"{module} is needed here and "
            + ("is not installed" if missing else f"cannot be imported ({error})")
            + f': pip install "loopwm[{extra}]" (in a clone: pip install -e ".[{extra}]")'
        ) from error
