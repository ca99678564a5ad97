"""The parts of a user's data: fit for each other, apart from each other, and long enough."""

import zlib

import numpy as np

from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError
from loopwm.study.compare.terms import Terms
from loopwm.study.datasets import Split
from loopwm.study.windows import Sampling, window_rows


def split_of(
    train: RolloutDataset,
    test: RolloutDataset,
    valid: RolloutDataset | None,
    shifted: RolloutDataset | None,
    terms: Terms,
) -> Split:
    """Check a user's data before anything is trained, and return its parts.

    Args:
        train: Training data; a fifth of its episodes are held out where `valid` is None.
        test: What is reported.
        valid: What rates and shapes are chosen by.
        shifted: What is reported beside the test set.
        terms: What is asked of every part.

    Raises:
        DataError: If parts do not fit together, share an episode, or are too short for a horizon.
    """
    parts = {"train": train, "valid": valid, "test": test, "shifted": shifted}
    given = {name: each for name, each in parts.items() if each is not None}
    for name, other in given.items():
        _check_fits(train, name, other)
    _check_apart(given)
    if valid is None:
        if train.num_episodes < 2:
            raise DataError("train has one episode; give valid=, or collect more episodes")
        train, valid = train.split(0.8, seed=0)
    measured = {"valid": valid, "test": test, "shifted": shifted}
    for name, part in measured.items():
        if part is not None:
            _check_length(name, part, terms)
    return Split(train, valid, valid, test, shifted)


def _check_fits(train: RolloutDataset, name: str, other: RolloutDataset) -> None:
    """Refuse a part whose rows are of another kind than the training set's."""
    if other.obs_dim != train.obs_dim:
        raise DataError(
            f"train has {train.obs_dim} observation dimensions, {name} has {other.obs_dim}"
        )
    ours, theirs = (each.action.shape[1:] for each in (train, other))
    discrete = train.meta.num_actions, other.meta.num_actions
    if ours != theirs or discrete[0] != discrete[1]:
        raise DataError(
            f"actions of train have the shape {ours} ({discrete[0] or 'no'} discrete ones), those "
            f"of {name} {theirs} ({discrete[1] or 'no'}): give experience of the same environment"
        )


def _check_apart(given: dict[str, RolloutDataset]) -> None:
    """Refuse parts that share an episode: what is trained on says nothing as a test."""
    seen: dict[int, str] = {}
    for name, part in given.items():
        marks = _episode_marks(part)
        shared = sorted({seen[mark] for mark in marks if mark in seen})
        if shared:
            count = sum(mark in seen for mark in marks)
            raise DataError(
                f"{name} holds {count:,} episodes that {' and '.join(shared)} holds too; split "
                "by whole episodes, such as train, test = data.split(0.9, seed=0)"
            )
        seen |= dict.fromkeys(marks, name)


def _episode_marks(data: RolloutDataset) -> set[int]:
    """Return a checksum of each episode's observations and actions."""
    first = np.flatnonzero(np.diff(data.episode, prepend=-1))
    ends = [*first[1:], len(data)]
    obs, action = np.ascontiguousarray(data.obs), np.ascontiguousarray(data.action)
    return {
        zlib.crc32(action[start:end].tobytes(), zlib.crc32(obs[start:end].tobytes()))
        for start, end in zip(first, ends, strict=True)
    }


def _check_length(name: str, part: RolloutDataset, terms: Terms) -> None:
    """Refuse a part in which no window of a horizon fits into an episode."""
    history, one = terms.context - 1, Sampling(max_windows=1)
    short = [k for k in terms.horizons if not len(window_rows(part, k, history, one))]
    if short:
        raise DataError(
            f"no episode of {name} has the {short[-1] + history} steps that "
            f"horizons={terms.horizons} with context={terms.context} ask for; collect longer "
            "episodes, or give smaller horizons"
        )
