"""Every argument and result against its annotation, each of them once."""

import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import FunctionType, ModuleType
from typing import Any

import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped
from torch import Tensor, nn

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


def remembering(decorate: Callable[..., Any]) -> Callable[..., Any]:
    """Make jaxtyping's decorator leave out checks whose outcome is known.

    What a check says depends on the types of arguments and result and on the sizes of arrays, and
    a loop calls its functions thousands of times with the same ones. A call that is like one that
    passed is not checked again; all others are.

    Args:
        decorate: `jaxtyping.jaxtyped`.
    """

    def with_typechecker(*, typechecker: Any) -> Callable[..., Any]:
        checking = decorate(typechecker=typechecker)

        def decorator(target: Any) -> Any:
            plain = isinstance(target, FunctionType) and not inspect.isgeneratorfunction(target)
            return _remembering(target, checking) if plain else checking(target)

        return decorator

    return with_typechecker


def _remembering(function: FunctionType, checking: Callable[..., Any]) -> Callable[..., Any]:
    checked, passed = checking(function), {}
    hints = " ".join(map(str, function.__annotations__.values()))
    if "Literal" in hints or "{" in hints:
        # Such annotations ask for a value: Literal["a"], Float[Tensor, "{n}"].
        return checked

    def returning(*_args: Any, **_kwargs: Any) -> Any:
        return results.pop()

    results: list[Any] = []
    # Annotations that are strings are looked up among the globals.
    copy = FunctionType(returning.__code__, function.__globals__, closure=returning.__closure__)
    check_result = checking(wraps(function)(copy))

    @wraps(function)
    def remembered(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        try:
            given = [_kind(each) for each in args]
            given += [(name, _kind(kwargs[name])) for name in kwargs]
            known = passed.get(key := tuple(given))
        except _NotKnown:
            return checked(*args, **kwargs)
        if known is None:
            result = checked(*args, **kwargs)
            passed[key] = {_kind_or_none(result)}
            return result
        result = function(*args, **kwargs)
        returned = _kind_or_none(result)
        if returned is None or returned not in known:
            results.append(result)
            check_result(*args, **kwargs)
            known.add(returned)
        return result

    return remembered


class _NotKnown(Exception):
    """What annotations say of a value cannot be told from its kind."""


def _kind(value: Any) -> Any:
    """Return what annotations can tell one value from another by: types, and sizes of arrays."""
    kind = type(value)
    how = _HOW.get(kind)
    if how is None:
        how = _HOW[kind] = _how(kind)
    return kind if how is type else how(value)


def _kind_or_none(value: Any) -> Any:
    try:
        return _kind(value)
    except _NotKnown:
        return None


def _how(kind: type) -> Callable[[Any], Any]:
    if issubclass(kind, Tensor | np.ndarray):
        return lambda value: (kind, value.dtype, value.shape)
    if issubclass(kind, tuple | list):
        return lambda value: (kind, *[_kind(each) for each in value])
    if issubclass(kind, dict):
        return lambda value: (kind, *[(key, _kind(each)) for key, each in value.items()])
    if issubclass(kind, type):
        return lambda value: value
    # Of other collections items are looked at too; of all else, the type alone.
    plain = issubclass(kind, str | bytes | nn.Module) or not issubclass(kind, Collection)
    return type if plain else _not_known


def _not_known(_value: Any) -> Any:
    raise _NotKnown


_HOW: dict[type, Callable[[Any], Any]] = {}


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
    decorated = getattr(value, "__globals__", {}).get("__name__") in (__name__, jaxtyped.__module__)
    return getattr(value, "__wrapped__", value) if decorated else value
