"""JSON as the standard has it: no NaN, no infinity, no tuples."""

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Make JSON values: tuples become lists, keys and numbers that are not finite become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
