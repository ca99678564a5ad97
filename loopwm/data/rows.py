"""From the arrays that users have to the columns that a dataset holds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loopwm.data.meta import DatasetMeta
from loopwm.errors import DataError

_LAST = "last step without next_obs"
_TERMINAL = "terminal step without next_obs"


def completed(given: Mapping[str, np.ndarray | None], meta: DatasetMeta) -> dict[str, Any]:
    """Complete the fields of a dataset from the columns that are known.

    Args:
        given: obs, action, reward, terminated, and where known truncated, next_obs and episode
            (see `RolloutDataset.from_arrays`).
        meta: What is known of the origin.

    Returns:
        The fields by name.

    Raises:
        DataError: If a column is missing or has another number of rows than the reward.
    """
    columns, lost = _columns(given)
    # With the terminal steps left out, a model would learn that no step ends an episode.
    info = {"can_terminate": np.zeros(len(columns["reward"]), bool)} if _TERMINAL in lost else {}
    meta = replace(meta, dropped={**meta.dropped, **lost})
    return {**columns, "info": info, "meta": _bounded(meta, columns["action"])}


def _columns(
    given: Mapping[str, np.ndarray | None],
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return all columns, and the number of rows that had to be left out, by reason."""
    known = {name: _stored(column) for name, column in given.items() if column is not None}
    known["reward"] = known["reward"].astype(np.float64, copy=False)
    if known["action"].dtype.kind in "iu" and known["action"].ndim == 1:
        known["action"] = known["action"].astype(np.int64, copy=False)
    for name in ("obs", "next_obs"):
        if name in known and known[name].ndim == 1:
            raise DataError(f"{name} must have shape [N,O], got {known[name].shape}")
    rows = len(known["reward"])
    known.setdefault("truncated", np.zeros(rows, bool))
    for name, column in known.items():
        if column.ndim == 0 or len(column) != rows:
            raise DataError(f"{name} has shape {column.shape}; reward has {rows} rows")
        if column.ndim > 1 and name in ("reward", "terminated", "truncated", "episode"):
            raise DataError(f"{name} must have shape [N], one number a row, got {column.shape}")
    if rows == 0:
        raise DataError("a dataset needs at least one row, got none")
    for name in ("terminated", "truncated"):
        known[name] = _flags(name, known[name])
    known["episode"] = _number(known)
    ends = np.append(np.diff(known["episode"]) > 0, True)
    if "next_obs" not in known:
        terminal = known["terminated"][ends]
        lost = {_LAST: int((~terminal).sum()), _TERMINAL: int(terminal.sum())}
        return _without_last(known, ends), {why: count for why, count in lost.items() if count}
    known["truncated"] = known["truncated"] | (ends & ~known["terminated"])
    return known, {}


def _bounded(meta: DatasetMeta, action: np.ndarray) -> DatasetMeta:
    """Take from the data what the description does not say of the actions' bounds."""
    told = (meta.action_low, meta.action_high, meta.num_actions)
    if any(each is not None for each in told) and not meta.bounds_derived:
        return meta
    if action.ndim == 1 and action.dtype.kind in "iu":
        return replace(meta, num_actions=int(action.max()) + 1, bounds_derived=True)
    if action.ndim == 2:
        low, high = (tuple(map(float, each)) for each in (action.min(axis=0), action.max(axis=0)))
        return replace(meta, action_low=low, action_high=high, bounds_derived=True)
    return meta


def divided(
    order: np.ndarray, groups: Sequence[np.ndarray], fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Divide episodes in two, every group in the same proportion, neither side empty.

    Args:
        order: Numbers of the episodes, shuffled.
        groups: Labels of each episode, by its number.
        fraction: Share of the first side.

    Returns:
        The numbers of both sides, ascending.
    """
    if groups:
        order = order[np.lexsort([group[order] for group in groups])]
    # A running count of whole episodes spreads the share evenly over the sorted groups.
    count = np.floor(np.arange(1, len(order) + 1) * fraction + 0.5).astype(int)
    first = np.diff(count, prepend=0) > 0
    if first.all() or not first.any():
        first[-1] = not first[-1]
    return np.sort(order[first]), np.sort(order[~first])


def _stored(column: Any) -> np.ndarray:
    """Return a copy: a buffer that is filled anew would change the data past every check."""
    # A tensor of torch is known by its verbs, since this file does without it.
    copy = np.array(column.detach().cpu().numpy() if hasattr(column, "detach") else column)
    # Files of other machines bring their byte order, which torch does not take.
    return copy.astype(copy.dtype.newbyteorder("="), copy=False)


def _flags(name: str, column: np.ndarray) -> np.ndarray:
    if column.dtype != bool and not np.isin(column, (0, 1)).all():
        raise DataError(f"{name} must hold booleans, got type {column.dtype}")
    return column.astype(bool)


def _number(known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Number the episodes 0, 1, 2, ... in row order."""
    if "episode" not in known:
        over = known["terminated"] | known["truncated"]
        return np.cumsum(np.append(0, over[:-1])).astype(np.int64)
    labels = known["episode"]
    starts = np.append(True, labels[1:] != labels[:-1])
    first, counts = np.unique(labels[starts], return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"episode {first[counts > 1][0]} appears in separate stretches of rows; "
            "sort the rows by episode and step"
        )
    return np.cumsum(starts).astype(np.int64) - 1


def _without_last(known: Mapping[str, np.ndarray], ends: np.ndarray) -> dict[str, np.ndarray]:
    """Take next observations from the following rows, leaving out each episode's last row."""
    kept = np.flatnonzero(~ends)
    if len(kept) == 0:
        raise DataError("without next_obs an episode needs at least 2 rows; give next_obs")
    columns = {name: column[kept] for name, column in known.items()}
    columns["next_obs"] = known["obs"][kept + 1]
    starts = np.append(True, np.diff(columns["episode"]) > 0)
    columns["episode"] = np.cumsum(starts).astype(np.int64) - 1
    columns["truncated"] = columns["truncated"] | (np.append(starts[1:], True))
    return columns


def whole_numbers(name: str, given: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return whole numbers, of which neither booleans nor fractions are any.

    Args:
        name: What to call them in an error.
        given: The numbers.

    Raises:
        DataError: If they are others.
    """
    numbers = np.asarray(given)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise DataError(
            f"{name} must be a sequence of whole numbers, got {given!r}; "
            "np.flatnonzero makes them of a mask"
        )
    return numbers.astype(np.int64)
