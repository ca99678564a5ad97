from dataclasses import replace

import numpy as np

from loopwm.data.meta import DatasetMeta
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset


def dataset(obs: np.ndarray, meta: DatasetMeta | None = None) -> RolloutDataset:
    rows = len(obs) - 1
    return RolloutDataset.from_arrays(
        obs[:-1],
        np.zeros((rows, 2)),
        np.linspace(-1, 1, rows),
        np.zeros(rows, bool),
        next_obs=obs[1:],
        meta=meta,
    )


def test_statistics_equal_numpy_moments_in_float32() -> None:
    obs = np.random.default_rng(0).normal(3, 2, size=(101, 4))
    stats = Statistics.of(dataset(obs))
    change = np.diff(obs, axis=0)
    expected = {
        "obs_mean": obs[:-1].mean(0),
        "obs_std": obs[:-1].std(0),
        "change_mean": change.mean(0),
        "change_std": change.std(0),
        "reward_mean": np.linspace(-1, 1, 100).mean(),
        "reward_std": np.linspace(-1, 1, 100).std(),
    }
    for name, value in expected.items():
        column = getattr(stats, name)
        assert column.dtype == np.float32
        assert column.shape == np.shape(value)
        np.testing.assert_allclose(column, value, rtol=1e-6, atol=1e-7)


def test_a_dimension_constant_up_to_rounding_has_a_spread_of_one() -> None:
    obs = np.random.default_rng(0).normal(size=(101, 3))
    obs[:, 0] = 7.0
    obs[:, 1] = 1e6 + 1e-3 * obs[:, 1]
    obs[:, 2] *= 1e-3
    stats = Statistics.of(dataset(obs))
    assert stats.obs_std[:2].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(stats.obs_std[2], obs[:-1, 2].std(), rtol=1e-6)


def test_small_units_are_no_constant() -> None:
    walk = np.random.default_rng(0).normal(size=(101, 3)).cumsum(axis=0)
    walk *= [4e-9, 1e-30, 1e-44]
    walk[:, 2] *= 1e-3
    stats = Statistics.of(dataset(walk))
    for name, values in (("obs_std", walk[:-1]), ("change_std", np.diff(walk, axis=0))):
        std = getattr(stats, name)
        np.testing.assert_allclose(std[:2], values.std(axis=0)[:2], rtol=1e-6)
        # Below what float32 has numbers for.
        assert std[2] == 1


def test_an_exact_constant_and_rounding_around_one_have_a_spread_of_one() -> None:
    obs = np.zeros((101, 4))
    obs[:, 1] = -3e8
    obs[:, 2] = 9.81 + 1e-12 * np.random.default_rng(0).normal(size=101)
    obs[:, 3] = np.arange(101)
    stats = Statistics.of(dataset(obs))
    assert stats.obs_std[:3].tolist() == [1, 1, 1]
    assert stats.change_std.tolist() == [1, 1, 1, 1]
    flicker = np.full((101, 1), 9.81, np.float32)
    flicker[::3] = np.nextafter(flicker[0], np.float32(10))
    assert Statistics.of(dataset(flicker)).change_std.tolist() == [1]


def test_bounds_of_actions_are_given_only_where_finite() -> None:
    obs = np.random.default_rng(0).normal(size=(5, 3))
    known = Statistics.of(
        dataset(obs, DatasetMeta(action_low=(-1.0, -2.0), action_high=(1.0, 2.0)))
    )
    assert known.action_low is not None
    assert known.action_high is not None
    assert known.action_low.tolist() == [-1, -2]
    assert known.action_high.dtype == np.float32
    endless = DatasetMeta(action_low=(-1.0, -np.inf), action_high=(1.0, np.inf))
    assert Statistics.of(dataset(obs, endless)).action_low is None
    bare = replace(dataset(obs), meta=DatasetMeta())
    assert Statistics.of(bare).action_high is None
