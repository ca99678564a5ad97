import dataclasses
import json
import sys

import numpy as np
import pytest

from loopwm.agent.policies import Snapshot, choose, returns_of, train_policies
from loopwm.agent.sac import PRESETS, PolicyTraining, actor_of, make_task, soft_actor_critic
from loopwm.data.actor import STAGES, Actor, ActorInfo, shipped_actors
from loopwm.data.unclipped import UnclippedState
from loopwm.errors import ConfigError, EnvironmentUnsupported, MissingExtra
from loopwm.seed import numpy_rng

INFO = ActorInfo("InvertedPendulum-v5", 0, "early", 0, 0.0, 0.0, 0)
SHORT = PolicyTraining(
    num_envs=4, learning_starts=40, evaluations=3, episodes=1, final_episodes=2, critic=(32, 32)
)


def snapshots(*returns):
    actor = Actor([(np.ones((1, 4)), np.zeros(1))], -np.ones(1), np.ones(1), INFO)
    return [Snapshot(actor, float(value)) for value in returns]


def chosen(*returns):
    by_stage = choose(snapshots(*returns))
    assert list(by_stage) == list(STAGES)
    return [each.mean_return for each in by_stage.values()]


def test_stages_are_taken_at_a_quarter_three_fifths_and_all_of_the_way_to_the_best_return():
    assert chosen(0, 5, 22, 40, 63, 80, 100, 90) == [22, 63, 100]
    assert chosen(-200, -190, 60, 390, 1000, 900) == [60, 390, 1000]


def test_stages_differ_and_never_fall_whatever_the_returns():
    assert chosen(0, 100, 25, 60) == [25, 60, 100]
    assert chosen(50, 20, 10) == [10, 20, 50]
    assert chosen(0, 0, 0, 0) == [0, 0, 0]
    assert chosen(0, 10, 1000) == [0, 10, 1000]
    assert chosen(8, 230, 235, 850, 450, 540, 410) == [230, 540, 850]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("actors")
    paths = train_policies("InvertedPendulum-v5", (2,), 120, root, config=SHORT, progress=False)
    return root, paths


def test_training_writes_an_actor_per_stage_with_its_origin(trained):
    root, paths = trained

    assert [path.relative_to(root).as_posix() for path in paths] == [
        f"invertedpendulum-v5/seed2-{stage}.safetensors" for stage in STAGES
    ]
    for path, stage in zip(paths, STAGES, strict=True):
        info = Actor.load(path).info
        assert (info.env_id, info.seed, info.stage) == ("InvertedPendulum-v5", 2, stage)
        assert 0 <= info.step <= 120
        assert info.episodes == 2
        assert (info.training["steps"], info.training["updates_per_step"]) == (120, 0.5)
        assert info.versions.keys() == {"gymnasium", "mujoco", "stable_baselines3", "torch"}


def test_what_training_wrote_is_found_as_actors_of_its_split(trained):
    root, paths = trained

    found = shipped_actors("InvertedPendulum-v5", "valid", root=root)

    assert [actor.info.filename for actor in found] == [
        path.relative_to(root).as_posix() for path in paths
    ]


def test_the_same_seed_trains_the_same_actor(trained, tmp_path):
    _, paths = trained
    again = train_policies("InvertedPendulum-v5", (2,), 120, tmp_path, config=SHORT, progress=False)

    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_the_recorded_return_is_that_of_the_actor_played_in_gymnasium(trained):
    _, paths = trained
    actor = Actor.load(paths[-1])
    returns = returns_of(actor, 2, seed=2 + 1_000_000)

    assert actor.info.mean_return == pytest.approx(returns.mean(), abs=0.06)
    assert actor.info.return_std == pytest.approx(returns.std(), abs=0.06)


def test_the_actor_acts_as_the_stable_baselines_policy_it_came_from():
    model = soft_actor_critic("Hopper-v5", 0, SHORT)
    actor = actor_of(model, INFO)
    observations = numpy_rng(0).standard_normal((200, 11)) * 3

    expected, _ = model.predict(observations, deterministic=True)

    actions = np.stack([actor(obs) for obs in observations])
    # Measured: 3e-7; four roundings of float32 at the scale of the bounds allow 1e-6.
    np.testing.assert_allclose(actions, expected, atol=1e-6)


def test_policies_observe_velocities_unclipped_where_that_is_an_option():
    assert isinstance(make_task("Hopper-v5"), UnclippedState)
    assert not isinstance(make_task("HalfCheetah-v5"), UnclippedState)


@pytest.mark.parametrize("env_id", PRESETS)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_shipped_actors_say_that_they_were_trained_with_the_presets(env_id, split):
    preset = json.loads(json.dumps(dataclasses.asdict(PRESETS[env_id])))
    for actor in shipped_actors(env_id, split):
        settings = dict(actor.info.training)
        assert actor.info.step <= settings.pop("steps")
        assert settings == {"algorithm": "SAC", **preset}


def test_settings_that_cannot_be_trained_with_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="steps must be at least"):
        train_policies("InvertedPendulum-v5", (0,), 5, tmp_path, config=SHORT)
    for seeds in ((), (0, -1)):
        with pytest.raises(ConfigError, match="seeds must be at least one number"):
            train_policies("InvertedPendulum-v5", seeds, 100, tmp_path, config=SHORT)
    with pytest.raises(ConfigError, match="evaluations"):
        PolicyTraining(evaluations=2)
    with pytest.raises(ConfigError, match="whole number"):
        PolicyTraining(num_envs=3, updates_per_step=0.5)
    with pytest.raises(ConfigError, match="whole number"):
        PolicyTraining(updates_per_step=0.0)


def test_a_task_with_discrete_actions_is_refused(tmp_path):
    with pytest.raises(EnvironmentUnsupported, match="CartPole-v1"):
        train_policies("CartPole-v1", (0,), 100, tmp_path, config=SHORT)


def test_without_stable_baselines_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)

    with pytest.raises(MissingExtra, match=r"loopwm\[agent\]"):
        train_policies("InvertedPendulum-v5", (0,), 100, tmp_path, config=SHORT)


def test_a_progress_bar_is_drawn_on_request(tmp_path, capsys):
    train_policies("InvertedPendulum-v5", (0,), 24, tmp_path, config=SHORT, progress=True)

    assert "InvertedPendulum-v5" in capsys.readouterr().err
