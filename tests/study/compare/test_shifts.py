"""Shifts keep apart what they say, in every part of the experience."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loopwm.data.concat import concat
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError, EnvironmentUnsupported
from loopwm.study.compare.grid import FACTORS, GRID, HELD_OUT, collect_grid, varied
from loopwm.study.compare.places import Place, experience
from loopwm.study.compare.settings import Settings
from loopwm.study.compare.shifts import SHIFTS, cut
from loopwm.study.compare.study import stages_of
from tests.study.compare.small import linear_world


def parts_of(data: RolloutDataset) -> set[str]:
    return {data.meta.parts[index] for index in data.info["part"]}


def fast_and_slow(seed: int) -> RolloutDataset:
    """Sixteen episodes of twenty steps, each as fast as its second dimension is large."""
    world = linear_world(seed, episodes=16)
    scale = np.random.default_rng(seed).permutation(np.linspace(0.1, 3, 16))[world.episode][:, None]
    names = replace(world.meta, obs_names=("x", "d x/dt"))
    still = np.abs(world.obs[:, :1]) * 0 + 1
    # The first dimension is huge and no velocity: it must not matter.
    obs = np.concatenate([1e3 * still / scale, still * scale], axis=1)
    return replace(world, obs=obs, next_obs=obs, meta=names)


def test_fast_episodes_are_kept_from_training_and_the_ones_between_are_not_used():
    train, test = fast_and_slow(0), fast_and_slow(1)
    parts = cut({"train": train, "valid": train, "test": test}, SHIFTS["speeds"])
    speeds = sorted({float(each) for each in train.obs[:, 1]})
    slow, fast = speeds[7], speeds[11]
    for name in ("train", "valid"):
        assert sorted({*parts[name].obs[:, 1]}) == speeds[:8]
    assert max(parts["test"].obs[:, 1]) <= slow
    beyond = test.obs[:, 1] > fast
    np.testing.assert_array_equal(parts["shifted"].obs, test.obs[beyond])


def test_where_no_dimension_is_named_a_velocity_changes_are_the_speed():
    worlds = []
    for index, step in enumerate((0.1, 1.0, 2.0, 5.0)):
        world = linear_world(index, episodes=1)
        obs = np.cumsum(np.full((20, 2), step), axis=0)
        worlds.append(replace(world, obs=obs, next_obs=obs + step))
    data = concat(worlds)
    parts = cut({"train": data, "test": data}, SHIFTS["speeds"])
    assert parts["train"].num_episodes == 2
    np.testing.assert_array_equal(parts["shifted"].obs, worlds[3].obs)


def test_parts_kept_apart_are_nowhere_but_in_the_shifted_test(tmp_path: Path):
    place = Place("InvertedPendulum-v5", 1, 600, 300, 300, "excitation", "excitations")
    split = experience(place, tmp_path)
    assert split.shifted is not None
    assert parts_of(split.shifted) == {"sines"}
    for data in (split.train, split.held, split.valid, split.test):
        assert parts_of(data) == {"uniform", "wandering"}
    # The same experience serves the comparison without a shift.
    whole = experience(replace(place, shift=""), tmp_path, pytest.fail)
    assert len(whole.test) == len(split.test) + len(split.shifted) == 300
    assert whole.shifted is None


def test_late_policies_are_predicted_from_excitation_and_earlier_ones(tmp_path: Path):
    place = Place("HalfCheetah-v5", 1, 960, 160, 160, "standard", "policies")
    split = experience(place, tmp_path)
    assert split.shifted is not None
    assert parts_of(split.shifted) == {"late"}
    assert parts_of(split.train) == parts_of(split.test) == {"excitation", "early", "middle"}


def test_nothing_left_is_said_by_name():
    train = fast_and_slow(0)
    alike = train.select_episodes([0])
    with pytest.raises(DataError, match="shifted test has no episode"):
        cut({"train": train, "test": alike}, SHIFTS["speeds"])


def test_shifts_are_asked_of_the_tasks_that_have_what_they_need():
    tasks = ("Hopper-v5", "Walker2d-v5", "loopwm/BallChain-v0", "Pendulum-v1")
    settings = Settings(tasks=tasks, updates=(10, 20), skips=(1, 2), loops=())
    found = [each for each in stages_of(settings) if each.place.shift]
    assert len({each.name for each in found}) == len(found)
    asked = {
        name: [e.place.task for e in found if e.place.shift == name] for name in settings.shifts
    }
    assert asked == {
        "policies": ["Hopper-v5"],
        "speeds": list(tasks),
        "excitations": list(tasks),
        "models": ["Hopper-v5", "Walker2d-v5"],
    }
    assert {each.terms.fit.updates for each in found} == {20}
    assert {tuple(each.families) for each in found} == {("looped", "untied", "mlp", "eightfold")}
    with pytest.raises(ConfigError, match="shifts must be among policies"):
        Settings(shifts=("weather",))


def test_every_factor_is_trained_on_and_no_pair_that_is_tested():
    trained = [pair for name, pair in GRID.items() if name not in HELD_OUT]
    for axis in (0, 1):
        assert {pair[axis] for pair in trained} == set(FACTORS)
        assert {GRID[name][axis] for name in HELD_OUT} == set(FACTORS)


def test_a_gear_acts_like_so_much_more_action_and_is_told():
    usual, strong = varied("HalfCheetah-v5", 1.0, 1.0), varied("HalfCheetah-v5", 1.4, 1.0)
    action = np.random.default_rng(0).uniform(-0.7, 0.7, 6)
    first = [env.reset(seed=3)[0] for env in (usual, strong)]
    np.testing.assert_array_equal(first[0][:-2], first[1][:-2])
    assert first[1][-2:].tolist() == [1.4, 1.0]
    for _ in range(5):
        ends = usual.step(1.4 * action)[0], strong.step(action)[0]
        np.testing.assert_allclose(ends[0][:-2], ends[1][:-2], atol=1e-9)


def test_a_damped_joint_slows_by_its_damping():
    env = varied("InvertedPendulum-v5", 1.0, 1.4)
    usual = varied("InvertedPendulum-v5", 1.0, 1.0)
    dampings = [each.unwrapped.model.dof_damping for each in (env, usual)]  # pyright: ignore[reportAttributeAccessIssue]
    assert dampings[1].max() > 0
    np.testing.assert_allclose(dampings[0], 1.4 * dampings[1])


def test_the_grid_is_collected_in_parts_that_are_told():
    data = collect_grid("Hopper-v5", 95, 0, {})
    assert data.meta.parts == tuple(GRID)
    for row in range(0, 95, 7):
        assert tuple(data.obs[row, -2:]) == GRID[data.meta.parts[data.info["part"][row]]]
    assert data.meta.obs_names is not None
    assert data.meta.obs_names[-2:] == ("gear", "damping")
    assert not data.terminated.any()
    assert parts_of(cut({"train": data, "test": data}, SHIFTS["models"])["shifted"]) == set(
        HELD_OUT
    )


def test_what_has_no_model_to_change_is_refused():
    with pytest.raises(EnvironmentUnsupported, match="has no MuJoCo model"):
        varied("Pendulum-v1", 1.0, 1.0)
    with pytest.raises(ConfigError, match="8 rows are too few"):
        collect_grid("Hopper-v5", 8, 0, {})
