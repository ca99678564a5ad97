"""Every argument and result against its annotation, each of them once."""

from collections.abc import Callable
from functools import cache
from typing import Any

from beartype import BeartypeConf, beartype

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
