"""Every argument and result against its annotation, each of them once."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

LIBRARY = ("loopwm", "loopwm_envs")

# An int where a float is asked for is what Python's own numeric tower allows.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(probe: Callable[..., Any]) -> Callable[..., Any]:
    """Make a check of a probe: what jaxtyping writes in the image of a function that it decorates.

    It calls one probe with the arguments before the function, and another with arguments and result
    after it. The second one need not look at the arguments again: the sizes that they gave to the
    axes' letters still hold. And a function inside a function, which is decorated whenever the
    outer one is called, is given the check that was made the first time.

    Args:
        probe: A function with the annotations of what is decorated; it does nothing.
    """
    hints = probe.__annotations__
    if hints.get("return", Any) is not Any:
        probe.__annotations__ = {"return": hints["return"]}
    return _made(_Probe(probe))


@cache
def _made(probe: "_Probe") -> Callable[..., Any]:
    return _check(probe.function)


class _Probe:
    """A probe, equal to those of the same name, arguments and annotations."""

    def __init__(self, function: Callable[..., Any]) -> None:
        code = function.__code__
        self.function = function
        self.key = (
            function.__module__,
            function.__qualname__,
            code.co_varnames,
            code.co_argcount,
            len(function.__defaults__ or ()),
            tuple(function.__kwdefaults__ or ()),
            repr(function.__annotations__),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Probe) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def number_made() -> int:
    """Return how many different checks there are."""
    return _made.cache_info().currsize


@contextmanager
def bare() -> Iterator[None]:
    """Take the checks off the library while the block runs.

    For torch's compiler, which traces through them what no user's program has in it, and for
    thousands of steps that are all alike.
    """
    classes = [
        each
        for module in _modules()
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ]
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    taken = [
        (holder, name, value)
        for holder in (*_modules(), *classes)
        for name, value in [*vars(holder).items()]
        if _bare(value) is not value
    ]
    try:
        for holder, name, value in taken:
            setattr(holder, name, _bare(value))
        yield
    finally:
        for holder, name, value in taken:
            setattr(holder, name, value)
        # What was imported meanwhile, the package's own lazy names with it, holds bare functions.
        functions = [value for _, _, value in taken if isinstance(value, FunctionType)]
        decorated = {id(_bare(value)): value for value in functions}
        for module in _modules():
            for name, value in [*vars(module).items()]:
                if id(value) in decorated:
                    setattr(module, name, decorated[id(value)])
        jaxtyping.config.update("jaxtyping_disable", before)


def _modules() -> list[ModuleType]:
    return [each for name, each in sys.modules.items() if name.split(".")[0] in LIBRARY]


def _bare(value: Any) -> Any:
    """Return a function as it was before the hook decorated it, anything else as it is."""
    if isinstance(value, staticmethod | classmethod):
        inner = _bare(value.__func__)
        return value if inner is value.__func__ else type(value)(inner)
    if isinstance(value, property) and value.fget is not None:
        inner = _bare(value.fget)
        return value if inner is value.fget else property(inner, value.fset, value.fdel)
    decorated = getattr(value, "__globals__", {}).get("__name__") == jaxtyped.__module__
    return getattr(value, "__wrapped__", value) if decorated else value
