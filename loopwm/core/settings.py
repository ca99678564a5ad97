"""What configurations are made of: Python's own numbers, and choices that are objects."""

import math
import operator
import types
from dataclasses import fields, is_dataclass
from typing import Any, TypeGuard, Union, get_args, get_origin

from loopwm.errors import ConfigError


def settle(config: Any) -> None:
    """Turn numpy's numbers in a configuration into Python's, and refuse what is of no use there.

    Configurations are saved as JSON, which knows Python's finite numbers and nothing else: what it
    does not know has to be found out before training, not after.

    Args:
        config: A frozen dataclass; its annotations say what belongs where.

    Raises:
        ConfigError: If a field holds something else than its annotation says: a class in place of
            an object of it, or what is no number, not a whole one, or infinite.
    """
    for field in fields(config):
        name, value = f"{type(config).__name__}.{field.name}", getattr(config, field.name)
        union = get_origin(field.type) in (types.UnionType, Union)
        kinds = get_args(field.type) if union else (field.type,)
        if value is None and types.NoneType in kinds:
            continue
        if get_origin(field.type) is tuple and {*get_args(field.type)} <= {int, float, ...}:
            value = _numbers(name, value, get_args(field.type))
        elif bool in kinds:
            value = _flag(name, value)
        elif float in kinds:
            value = _number(name, value)
        elif int in kinds:
            value = whole(name, value)
        else:
            _check_choice(name, value, tuple(filter(_is_choice, kinds)), field.default)
        object.__setattr__(config, field.name, value)


def whole(name: str, value: Any) -> int:
    """Return a whole number as Python's.

    Args:
        name: What to call it in an error.
        value: A number of any kind.

    Raises:
        ConfigError: If it is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigError(f"{name} must be a whole number, got {value!r}") from error


def _numbers(name: str, value: Any, kinds: tuple[Any, ...]) -> tuple[float, ...]:
    if not isinstance(value, tuple | list) or (... not in kinds and len(value) != len(kinds)):
        count = "" if ... in kinds else f"{len(kinds)} "
        raise ConfigError(f"{name} must be a tuple of {count}numbers, got {value!r}")
    settled = whole if kinds[0] is int else _number
    return tuple(settled(f"{name}[{index}]", each) for index, each in enumerate(value))


def _number(name: str, value: Any) -> float:
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise ConfigError(f"{name} must be a number, got {value!r}")
    try:
        settled = operator.index(value)  # 6 stays 6, as it was written
    except TypeError:
        settled = float(value)
    if not math.isfinite(settled):
        raise ConfigError(f"{name}={settled!r} is out of range: it must be a finite number")
    return settled


def _flag(name: str, value: Any) -> bool:
    if value not in (False, True):
        raise ConfigError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _is_choice(kind: Any) -> TypeGuard[type]:
    return isinstance(kind, type) and (is_dataclass(kind) or getattr(kind, "_is_protocol", False))


def _check_choice(name: str, value: Any, kinds: tuple[type, ...], default: Any) -> None:
    if not kinds or (isinstance(value, kinds) and not isinstance(value, type)):
        return
    if isinstance(value, type):
        raise ConfigError(
            f"{name} is the class {value.__name__}, not an object of it: write "
            f"{value.__name__}() with parentheses"
        )
    known = ", ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    raise ConfigError(f"{name} must be of {known}, such as {default!r}, got {value!r}")
