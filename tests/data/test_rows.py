"""From the arrays that users have to a dataset that can be trained on and judged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loopwm as lw
from loopwm.data.ending import can_terminate
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import COLUMNS, RolloutDataset
from loopwm.errors import DataError

SHORT = lw.FitConfig(updates=1, batch_size=16, horizon=3, device="cpu", threads=1, progress=False)
SMALL = lw.WorldConfig(width=8, depth=lw.depth.Poisson(3))


def arrays(action: np.ndarray) -> dict[str, Any]:
    """Return the columns of two episodes of equal length, with some actions."""
    rows = len(action)
    path = np.random.default_rng(rows).normal(size=(rows + 1, 2))
    columns = {"obs": path[:-1], "next_obs": path[1:], "action": action}
    truncated = np.arange(1, rows + 1) % (rows // 2) == 0
    return columns | {
        "reward": np.zeros(rows),
        "terminated": np.zeros(rows, bool),
        "truncated": truncated,
    }


def recorded(low: float, high: float, meta: DatasetMeta | None = None) -> RolloutDataset:
    """Return rollouts whose actions reach from one number to another."""
    return RolloutDataset.from_arrays(**arrays(np.linspace(low, high, 40)[:, None]), meta=meta)


def without_next_obs(terminated: list[int]) -> RolloutDataset:
    obs = np.arange(9.0)[:, None]
    episode = np.repeat([0, 1, 2], 3)
    return RolloutDataset.from_arrays(
        obs, np.zeros((9, 1)), np.zeros(9), np.isin(np.arange(9), terminated), episode=episode
    )


def test_where_a_terminal_step_has_no_next_obs_nothing_is_told_of_endings() -> None:
    data = without_next_obs([2, 8])
    assert not data.terminated.any()
    assert data.info["can_terminate"].tolist() == [False] * 6
    assert data.meta.dropped == {
        "last step without next_obs": 1,
        "terminal step without next_obs": 2,
    }
    # Of episodes that went on for longer than they were watched, the rows tell that they went on.
    cut = without_next_obs([])
    assert can_terminate(cut).all()
    assert cut.meta.dropped == {"last step without next_obs": 3}
    assert can_terminate(cut.extend(data)).tolist() == [True] * 6 + [False] * 6


@pytest.mark.usefixtures("without_shape_checks")
def test_arrays_of_another_byte_order_are_trained_on_and_evaluated() -> None:
    given = arrays(np.linspace(-1, 1, 40)[:, None])
    foreign = {name: each.astype(each.dtype.newbyteorder(">")) for name, each in given.items()}
    data = RolloutDataset.from_arrays(**foreign)
    for name in COLUMNS:
        assert getattr(data, name).dtype.isnative
    for name, column in given.items():
        np.testing.assert_array_equal(getattr(data, name), column)
    assert lw.evaluate(lw.fit(data, SMALL, SHORT), data, (1,)).rmse[1] > 0


def test_bounds_that_were_not_told_are_marked_and_taken_anew_from_other_rows() -> None:
    data = recorded(-1, 2)
    assert data.meta.bounds_derived
    assert not recorded(-1, 2, DatasetMeta(action_low=(-3,), action_high=(3,))).meta.bounds_derived
    again = recorded(-2, 1, data.meta)
    assert (again.meta.action_low, again.meta.action_high) == ((-2.0,), (1.0,))
    assert again.meta.bounds_derived


def test_a_description_without_the_mark_is_one_of_an_earlier_version(tmp_path: Path) -> None:
    collected = DatasetMeta(env_id="E", action_low=(-1.0,), action_high=(1.0,))
    assert "bounds_derived" not in collected.to_json()
    assert DatasetMeta.from_json(collected.to_json()) == collected
    data = recorded(-1, 2)
    data.save(tmp_path / "data")
    assert RolloutDataset.load(tmp_path / "data").meta == data.meta


@pytest.mark.usefixtures("without_shape_checks")
def test_a_model_goes_on_with_recordings_whose_actions_lie_inside_its_own() -> None:
    model = lw.fit(recorded(-2, 2), SMALL, SHORT)
    assert lw.fit(recorded(-1, 2), None, SHORT, init=model).num_parameters == model.num_parameters
    with pytest.raises(DataError, match=r"action_high=\(2\.0,\), .* \(3\.0,\): .*DatasetMeta\(act"):
        lw.fit(recorded(-1, 3), None, SHORT, init=model)
    told = DatasetMeta(action_low=(-1.0,), action_high=(1.0,))
    with pytest.raises(DataError, match=r"collect with the same bounds, or train a new model$"):
        lw.fit(recorded(-1, 1, told), None, SHORT, init=model)
    chosen = [RolloutDataset.from_arrays(**arrays(np.arange(40) % count)) for count in (4, 3)]
    model = lw.fit(chosen[0], SMALL, SHORT)
    with pytest.raises(DataError, match=r"num_actions=4, the data 3; .*DatasetMeta\(num_actions=4"):
        lw.fit(chosen[1], None, SHORT, init=model)
