"""Imagined environments are real Gymnasium environments, and step as their model does."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import loopwm as lw
from loopwm.data.normalise import Statistics
from loopwm.errors import ConfigError, DataError
from loopwm.world.build import build
from tests.agent.known import CartPole, Point

ACTION = Box(-1.0, 1.0, (2,), np.float32)
STARTS = np.linspace(-1, 1, 20, dtype=np.float32).reshape(10, 2)


def point(num_envs: int = 4, horizon: int = 3, ending: float = 0.0, **options: Any) -> Any:
    more = options.pop("more", {})
    return lw.ImaginationVectorEnv(
        Point(ending, **more), STARTS, num_envs, horizon, action_space=ACTION, **options
    )


def random_model(data: lw.RolloutDataset, members: int = 1) -> Any:
    models = [
        build(lw.WorldConfig(width=8), data.meta, Statistics.of(data), seed).eval()
        for seed in range(members)
    ]
    return models[0] if members == 1 else lw.Ensemble(models)


def test_a_known_model_is_the_real_environment_step_for_step():
    real: Any = gym.make("CartPole-v1", max_episode_steps=30)
    space = Discrete(2)
    for seed in range(6):
        obs, _ = real.reset(seed=seed)
        start = np.asarray(real.unwrapped.state, np.float64)
        imagined = lw.ImaginationEnv(CartPole(), start[None], 30, action_space=space)
        np.testing.assert_allclose(imagined.reset(seed=0)[0], obs, rtol=1e-6)
        rng, over = np.random.default_rng(seed), False
        # Some poles fall, others stand until the time limit.
        while not over:
            tilt = real.unwrapped.state[2] + real.unwrapped.state[3]
            action = int(tilt > 0) if seed < 3 else int(rng.integers(2))
            expected, found = real.step(action), imagined.step(action)
            np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
            assert found[1:4] == expected[1:4]
            over = expected[2] or expected[3]


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("model", ["runs/hopper", None, STARTS])
def test_what_is_no_model_is_refused_at_once(model: Any):
    with pytest.raises(ConfigError, match=r"model must have the verbs.*lw\.load\(path\)"):
        lw.ImaginationVectorEnv(model, STARTS, action_space=ACTION)


def test_actions_of_another_shape_leave_the_episode_as_it_is():
    for space, model, wrong in (
        (ACTION, Point(0.0), (np.zeros(2), np.zeros((2, 2)), np.zeros((1, 3)))),
        (Discrete(2), CartPole(), (np.array(1), np.zeros((1, 1), np.int64))),
    ):
        starts = np.zeros((1, 2 if space is ACTION else 4), np.float32)
        envs = lw.ImaginationVectorEnv(model, starts, 1, 5, action_space=space)
        envs.reset(seed=0)
        before = [each.clone() for each in envs._state or ()]
        for actions in wrong:
            with pytest.raises(DataError, match="actions must have the shape"):
                envs.step(actions)
        assert all(map(torch.equal, before, envs._state or ()))
        envs.step(envs.action_space.sample())


def test_steps_are_those_of_imagine(hopper: lw.RolloutDataset):
    model = random_model(hopper)
    envs = lw.ImaginationVectorEnv(model, hopper, 5, 4, threshold=1.0, halt=lw.Fixed(3))
    obs, _ = envs.reset(seed=3)
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 4, 3)).astype(np.float32)
    trajectory = model.imagine(obs, actions, halt=lw.Fixed(3))
    for k in range(4):
        found, reward, terminated, truncated, info = envs.step(actions[:, k])
        np.testing.assert_allclose(found, trajectory.obs[:, k], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(reward, trajectory.reward[:, k], rtol=1e-4, atol=1e-5)
        assert (info["iterations"] == 3).all()
        assert info["_iterations"].all()
        assert (truncated == (k == 3)).all()
        assert not terminated.any()


def test_spaces_are_those_of_the_data(hopper: lw.RolloutDataset):
    envs = lw.ImaginationVectorEnv(random_model(hopper), hopper, 3)
    real: Any = gym.make("Hopper-v5")
    assert envs.single_action_space == real.action_space
    assert envs.single_observation_space == real.observation_space
    assert envs.observation_space.shape == (3, 11)
    obs, _ = envs.reset(seed=0)
    assert obs in envs.observation_space
    assert all(any((row == start).all() for start in hopper.obs) for row in obs)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_gymnasium_accepts_the_single_environment(hopper: lw.RolloutDataset):
    check_env(lw.ImaginationEnv(random_model(hopper), hopper, 20), skip_render_check=True)


def test_gymnasium_makes_them_by_name(hopper: lw.RolloutDataset):
    model = random_model(hopper)
    envs = gym.make_vec("loopwm/Imagination-v0", num_envs=3, model=model, starts=hopper, horizon=2)
    assert isinstance(envs, lw.ImaginationVectorEnv)
    assert envs.reset(seed=0)[0].shape == (3, 11)
    how: Any = {"model": model, "starts": hopper, "horizon": 2, "threshold": 1.0}
    single: Any = gym.make("loopwm/Imagination-v0", **how)
    single.reset(seed=0)
    assert [single.step(single.action_space.sample())[3] for _ in range(2)] == [False, True]


def test_the_same_seed_imagines_the_same():
    def run(seed: int) -> list[Any]:
        envs = point(ending=0.3)
        out = [envs.reset(seed=seed)[0]]
        for _ in range(6):
            out += envs.step(np.ones((4, 2), np.float32))[:4]
        return out

    first, again, other = run(1), run(1), run(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_termination_is_drawn_from_its_probability_or_thresholded():
    drawn = point(4000, ending=0.3)
    drawn.reset(seed=0)
    share = drawn.step(np.zeros((4000, 2)))[2].mean()
    assert share == pytest.approx(0.3, abs=0.03)
    for threshold, ends in ((0.25, True), (0.3, True), (0.35, False)):
        envs = point(ending=float(np.float32(0.3)), threshold=float(np.float32(threshold)))
        envs.reset(seed=0)
        assert (envs.step(np.zeros((4, 2)))[2] == ends).all()


def test_ended_episodes_begin_in_the_next_step():
    envs = point(horizon=2)
    envs.reset(seed=0)
    push = np.ones((4, 2), np.float32)
    envs.step(push)
    last, _, _, truncated, _ = envs.step(push)
    assert truncated.all()
    obs, reward, terminated, truncated, info = envs.step(push)
    assert all(any((row == start).all() for start in STARTS) for row in obs)
    assert not np.array_equal(obs, last + 0.25)
    for values in (reward, terminated, truncated, info["_iterations"]):
        assert not values.any()
    np.testing.assert_allclose(envs.step(push)[0], obs + 0.25, rtol=1e-6)


def test_ended_episodes_begin_in_the_same_step():
    envs = point(horizon=2, autoreset_mode=AutoresetMode.SAME_STEP)
    first, _ = envs.reset(seed=0)
    push = np.ones((4, 2), np.float32)
    assert "final_obs" not in envs.step(push)[4]
    obs, _, _, truncated, info = envs.step(push)
    assert truncated.all()
    assert info["_final_obs"].all()
    np.testing.assert_allclose(info["final_obs"], first + 0.5, rtol=1e-6)
    assert info["_final_info"].all()
    np.testing.assert_array_equal(info["final_info"]["iterations"], info["iterations"])
    assert info["final_info"]["_iterations"].all()
    assert all(any((row == start).all() for start in STARTS) for row in obs)
    np.testing.assert_allclose(envs.step(push)[0], obs + 0.25, rtol=1e-6)


def test_without_autoreset_the_user_begins_episodes_anew():
    envs = point(horizon=1, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    push = np.ones((4, 2), np.float32)
    before = envs.step(push)[0]
    with pytest.raises(ConfigError, match="are over"):
        envs.step(push)
    mask = np.array([True, False, True, True])
    given = np.full((3, 2), 9.0)
    obs, _ = envs.reset(options={"reset_mask": mask, "obs": given})
    assert (obs[mask] == 9).all()
    assert (obs[1] == before[1]).all()
    with pytest.raises(ConfigError, match=r"\[1\] are over"):
        envs.step(push)


def test_a_prediction_that_is_not_finite_ends_its_episode_alone():
    def broken(obs: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(obs))[:, None] == 1, np.nan, obs)

    envs = point(more={"next_obs": broken})
    first, _ = envs.reset(seed=0)
    obs, reward, terminated, truncated, info = envs.step(np.ones((4, 2), np.float32))
    assert np.isfinite(obs).all()
    assert info["broken"].tolist() == [False, True, False, False]
    assert info["_broken"].all()
    assert (obs[1] == first[1]).all()
    assert reward[1] == 0
    assert truncated.tolist() == [False, True, False, False]
    assert not terminated.any()


def test_disagreement_costs_and_ends(hopper: lw.RolloutDataset):
    model, action = random_model(hopper, members=3), np.zeros((6, 3), np.float32)
    plain = lw.ImaginationVectorEnv(model, hopper, 6, threshold=1.0)
    obs, _ = plain.reset(seed=0)
    _, reward, _, truncated, info = plain.step(action)
    unsure = model.predict(obs, action).disagreement / model.stats.obs_std
    np.testing.assert_allclose(info["disagreement"], np.sqrt((unsure**2).mean(1)), rtol=1e-4)
    assert not truncated.any()
    limit = float(np.median(info["disagreement"]))
    careful = lw.Caution(penalty=2.0, limit=limit)
    envs = lw.ImaginationVectorEnv(model, hopper, 6, threshold=1.0, caution=careful)
    envs.reset(seed=0)
    _, penalised, _, truncated, _ = envs.step(action)
    np.testing.assert_allclose(penalised, reward - 2 * info["disagreement"], rtol=1e-5)
    assert (truncated == (info["disagreement"] > limit)).all()
    assert truncated.any()


def test_steps_that_have_not_settled_end_if_asked_to():
    more = {"settled": lambda obs: np.arange(len(obs)) != 2}
    for unsettled, ends in ((False, []), (True, [2])):
        envs = point(more=more, caution=lw.Caution(unsettled=unsettled))
        envs.reset(seed=0)
        truncated = envs.step(np.zeros((4, 2)))[3]
        assert np.flatnonzero(truncated).tolist() == ends


def test_the_users_own_reward_and_termination_are_used(hopper: lw.RolloutDataset):
    model = random_model(hopper).use(
        reward_fn=lambda obs, action, next_obs: 10 * action[..., 0],
        termination_fn=lambda obs, action, next_obs: action[..., 0] > 0.5,
    )
    envs = lw.ImaginationVectorEnv(model, hopper, 3)
    envs.reset(seed=0)
    action = np.array([[0.1, 0, 0], [0.9, 0, 0], [-1, 0, 0]], np.float32)
    _, reward, terminated, _, _ = envs.step(action)
    np.testing.assert_allclose(reward, 10 * action[:, 0], rtol=1e-6)
    assert terminated.tolist() == [False, True, False]


def test_what_is_no_probability_is_refused_before_it_counts(hopper: lw.RolloutDataset):
    model = random_model(hopper).use(termination_fn=lambda o, a, n: 3 * n[..., 0].abs() + 2)
    envs = lw.ImaginationVectorEnv(model, hopper, 3)
    envs.reset(seed=0)
    with pytest.raises(DataError, match=r"terminated must be a probability, .* the sigmoid"):
        envs.step(envs.action_space.sample())


def test_a_beginning_that_is_refused_changes_nothing(hopper: lw.RolloutDataset):
    envs = lw.ImaginationVectorEnv(random_model(hopper), hopper, 2)
    obs, _ = envs.reset(seed=0)
    with pytest.raises(DataError, match="NaN or infinite"):
        envs.reset(options={"obs": obs * np.nan})
    assert (envs._obs == obs).all()


def test_where_no_data_teaches_an_end_nothing_ends(tmp_path: Path):
    never = {"terminate_when_unhealthy": False}
    data = lw.collect("Hopper-v5", 400, seed=0, unclipped=True, env_kwargs=never, progress=False)
    short = lw.FitConfig(updates=3, batch_size=16, progress=False)
    lw.fit(data, lw.WorldConfig(width=8), short).save(tmp_path / "model")
    model = lw.load(tmp_path / "model")
    envs = lw.ImaginationVectorEnv(model, data, 100, 50)
    envs.reset(seed=0)
    assert not any(envs.step(envs.action_space.sample())[2].any() for _ in range(5))
    # What a model has learned of ends, it keeps.
    ending = lw.collect("Hopper-v5", 400, seed=0, unclipped=True, progress=False)
    taught = lw.fit(ending, lw.WorldConfig(width=8), short)
    kept = lw.fit(data, None, short, init=taught)
    before, after = (each.state_dict() for each in (taught, kept))
    for name in [name for name in before if name.startswith("heads.termination")]:
        assert before[name].any()
        assert after[name].any()


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="num_envs"):
        point(0)
    with pytest.raises(ConfigError, match="threshold"):
        point(threshold=0.0)
    with pytest.raises(ConfigError, match="pass action_space="):
        lw.ImaginationVectorEnv(Point(), STARTS)
    with pytest.raises(DataError, match="at least one"):
        lw.ImaginationVectorEnv(Point(), STARTS[:0], action_space=ACTION)
    with pytest.raises(DataError, match="NaN"):
        lw.ImaginationVectorEnv(Point(), STARTS * np.nan, action_space=ACTION)
    with pytest.raises(ConfigError, match="call reset"):
        point().step(np.zeros((4, 2)))
    envs = point(caution=lw.Caution(penalty=1.0))
    envs.reset(seed=0)
    with pytest.raises(ConfigError, match="needs an ensemble"):
        envs.step(np.zeros((4, 2)))
    with pytest.raises(ConfigError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.zeros(4, bool)})
    with pytest.raises(ConfigError, match=r"Caution\.limit"):
        lw.Caution(limit=0.0)
