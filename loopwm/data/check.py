"""What must hold for the columns of a dataset."""

from collections.abc import Mapping

import numpy as np

from loopwm.data.meta import DatasetMeta
from loopwm.errors import DataError


def check_columns(columns: Mapping[str, np.ndarray], info: Mapping[str, np.ndarray]) -> None:
    """Refuse columns that do not describe whole episodes of finite numbers.

    Args:
        columns: obs, next_obs [N,O]; action [N,A] or [N]; reward, terminated, truncated,
            episode [N].
        info: Further columns [N,...]; NaN is allowed there and means "not reported".

    Raises:
        DataError: Naming the column and the first bad row.
    """
    _check_shapes(columns, info)
    _check_types(columns)
    for name in ("obs", "next_obs", "action", "reward"):
        _check_finite(name, columns[name])
    ends = check_episodes(columns["episode"])
    _check_ends(columns["terminated"], columns["truncated"], ends)
    _check_chain(columns["obs"], columns["next_obs"], ends)
    for name in ("part", "variant"):
        if name in info:
            _check_constant(name, info[name], ends)


def check_meta(
    obs: np.ndarray, action: np.ndarray, info: Mapping[str, np.ndarray], meta: DatasetMeta
) -> None:
    """Refuse a description that the columns contradict.

    Args:
        obs: Observation before each step [N,O].
        action: Action of each step [N,A] or [N].
        info: Further columns [N,...].
        meta: What is said of them.

    Raises:
        DataError: Naming the field of `meta` or the column.
    """
    if action.ndim == 1:
        choices = None if meta.num_actions is None else int(meta.num_actions)
        _check_index("action", action, choices, "meta.num_actions")
    else:
        _check_bounds(action.shape[1], meta)
    _check_observed(obs.shape[1], meta)
    if "part" in info and meta.parts:
        _check_index("part", info["part"], len(meta.parts), "the length of meta.parts")
    if "variant" in info:
        count = max(1, len(meta.variants))
        _check_index("variant", info["variant"], count, "the length of meta.variants")


def _check_observed(dims: int, meta: DatasetMeta) -> None:
    angles, names, dt = meta.angles, meta.obs_names, meta.dt
    if len(set(angles)) < len(angles) or any(not 0 <= each < dims for each in angles):
        raise DataError(f"meta.angles must be different dimensions in 0..{dims - 1}, got {angles}")
    if names is not None and len(names) != dims:
        raise DataError(
            f"meta.obs_names has {len(names)} names and observations have {dims} dimensions: give "
            "one for each, or None"
        )
    # Descriptions are also read from files, which know no annotations.
    number = isinstance(dt, float | int) and not isinstance(dt, bool)
    if dt is not None and not (number and 0 < dt < np.inf):
        raise DataError(
            f"meta.dt must be seconds per step, positive and finite, got {dt!r}: give None where "
            "there is no clock"
        )


def _check_index(name: str, column: np.ndarray, count: int | None, source: str) -> None:
    wrong = (column < 0) | (column >= count) if count is not None else column < 0
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        limit = "an index from 0 up" if count is None else f"in 0..{count - 1}, {source} is {count}"
        raise DataError(f"{name} must be {limit}; got {column[row]} in row {row}")


def _check_bounds(dims: int, meta: DatasetMeta) -> None:
    if meta.num_actions is not None:
        raise DataError(
            f"meta.num_actions={meta.num_actions}, but actions are vectors of {dims}: leave it "
            "None, or give discrete actions as integers [N]"
        )
    low, high = meta.action_low, meta.action_high
    for name, bounds in (("action_low", low), ("action_high", high)):
        if bounds is not None and len(bounds) != dims:
            raise DataError(
                f"meta.{name} has {len(bounds)} numbers and actions have {dims}: give one for each"
            )
    if low is not None and high is not None and not np.less_equal(low, high).all():
        raise DataError(f"meta.action_low={low} must not be above meta.action_high={high}")


def check_episodes(episode: np.ndarray) -> np.ndarray:
    """Return where episodes end, having checked that they are numbered 0, 1, 2, ... in row order.

    Args:
        episode: Episode of each row [N].

    Returns:
        Whether each row is the last of its episode [N].
    """
    steps = np.diff(episode)
    if episode[0] != 0 or not np.isin(steps, (0, 1)).all():
        row = 0 if episode[0] != 0 else int(np.flatnonzero(~np.isin(steps, (0, 1)))[0]) + 1
        raise DataError(
            f"episode must count 0, 1, 2, ... in row order, got {episode[row]} in row {row}; "
            "RolloutDataset.from_arrays numbers episodes for you"
        )
    return np.append(steps == 1, True)


def _check_shapes(columns: Mapping[str, np.ndarray], info: Mapping[str, np.ndarray]) -> None:
    rows = len(columns["reward"])
    if rows == 0:
        raise DataError("a dataset needs at least one row, got none")
    for name, column in {**columns, **info}.items():
        if column.ndim == 0 or len(column) != rows:
            raise DataError(f"{name} has shape {column.shape}; reward has {rows} rows")
    wanted = {"obs": (2,), "next_obs": (2,), "action": (1, 2)}
    for name, column in columns.items():
        dims = wanted.get(name, (1,))
        if column.ndim not in dims or 0 in column.shape:
            raise DataError(f"{name} must have {dims} axes and no empty one, got {column.shape}")
    if columns["obs"].shape != columns["next_obs"].shape:
        raise DataError(
            f"obs has shape {columns['obs'].shape}, next_obs has {columns['next_obs'].shape}"
        )


def _check_types(columns: Mapping[str, np.ndarray]) -> None:
    action = columns["action"]
    kinds = {"obs": "fiu", "next_obs": "fiu", "action": "iu" if action.ndim == 1 else "f"}
    kinds |= {"reward": "f", "terminated": "b", "truncated": "b", "episode": "iu"}
    for name, column in columns.items():
        if column.dtype.kind not in kinds[name]:
            raise DataError(
                f"{name} of shape {column.shape} cannot be of type {column.dtype}"
                + (" (discrete actions are integers [N], others floats [N,A])" * (name == "action"))
            )


def _check_finite(name: str, column: np.ndarray) -> None:
    if column.dtype.kind != "f":
        return
    # The sum is finite whenever all numbers are, up to overflow, and needs no array of flags.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(column.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(column))
    if len(bad):
        row = int(bad[0][0])
        raise DataError(
            f"{name} holds {column[tuple(bad[0])]} in row {row} ({len(bad)} values in all); "
            "cut the episode before its first bad step"
        )


def _check_ends(terminated: np.ndarray, truncated: np.ndarray, ends: np.ndarray) -> None:
    over = terminated | truncated
    if np.array_equal(over, ends):
        return
    row = int(np.flatnonzero(over != ends)[0])
    if over[row]:
        raise DataError(f"row {row} is terminated or truncated, but its episode goes on after it")
    raise DataError(
        f"row {row} is the last of its episode, but neither terminated nor truncated; "
        "mark a cut episode as truncated"
    )


def _check_chain(obs: np.ndarray, next_obs: np.ndarray, ends: np.ndarray) -> None:
    inside = ~ends[:-1]
    wrong = (next_obs[:-1] != obs[1:]).any(axis=1) & inside
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"next_obs of row {row} is not obs of row {row + 1} in the same episode; "
            "an episode seems to end there without being marked"
        )


def _check_constant(name: str, column: np.ndarray, ends: np.ndarray) -> None:
    changes = (column[1:] != column[:-1]) & ~ends[:-1]
    if changes.any():
        row = int(np.flatnonzero(changes)[0]) + 1
        raise DataError(f"{name} changes inside an episode, in row {row}")
