"""Recordings of one robot belong together, though each shows but some of its actions."""

from dataclasses import replace

import numpy as np
import pytest

from loopwm.data.concat import concat
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError


def recorded(action: np.ndarray, meta: DatasetMeta | None = None) -> RolloutDataset:
    rows = len(action)
    path = np.random.default_rng(0).normal(size=(rows + 1, 2))
    return RolloutDataset.from_arrays(
        path[:-1], action, np.zeros(rows), np.zeros(rows, bool), next_obs=path[1:], meta=meta
    )


LEFT, RIGHT = np.array([[-2.0, 0.0], [1.0, 0.5]]), np.array([[-1.0, 0.0], [3.0, 0.25]])
TOLD = DatasetMeta(action_low=(-2.0, 0.0), action_high=(1.0, 0.5))


def test_bounds_that_were_taken_from_the_rows_are_widened_to_hold_all() -> None:
    both = recorded(LEFT).extend(recorded(RIGHT))
    assert (both.meta.action_low, both.meta.action_high) == ((-2.0, 0.0), (3.0, 0.5))
    assert both.meta.bounds_derived
    whole = recorded(np.concatenate([LEFT, RIGHT])).meta
    assert both.meta == whole == both.extend(recorded(LEFT)).meta
    few, many = recorded(np.array([0, 3])), recorded(np.array([4, 1]))
    assert few.extend(many).meta.num_actions == many.extend(few).meta.num_actions == 5


def test_bounds_that_were_told_are_kept_and_others_refused_with_the_remedy() -> None:
    told = recorded(LEFT, TOLD)
    assert not told.extend(recorded(LEFT)).meta.bounds_derived
    for pair in ([told, recorded(RIGHT)], [recorded(RIGHT), told]):
        with pytest.raises(
            DataError, match=r"differ in action_low.*DatasetMeta\(action_low=\.\.\."
        ):
            concat(pair)
    # Equal to the first, and wider than what the third was told.
    with pytest.raises(DataError, match="differ in action_low"):
        concat([recorded(LEFT), recorded(RIGHT), told])
    four = recorded(np.array([0, 3]), DatasetMeta(num_actions=4))
    with pytest.raises(DataError, match=r"num_actions: 4 and 5; .*DatasetMeta\(num_actions=\.\.\."):
        four.extend(recorded(np.array([4, 1])))
    assert concat([told, replace(told)]).meta == replace(told.meta)


def test_vectors_and_indices_are_not_put_together() -> None:
    with pytest.raises(DataError, match="action has"):
        recorded(LEFT).extend(recorded(np.array([0, 3])))
