"""A function that is stopped in the midst of its work."""

from collections.abc import Callable
from typing import Any


def stopped_at(call: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, interrupted as by Ctrl-C at one of its calls; later ones go through.

    Args:
        call: Which, from 1 on.
        function: What works else.
    """
    calls = 0

    def interrupted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return function(*given, **named)

    return interrupted
