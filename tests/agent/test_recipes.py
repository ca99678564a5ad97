"""Recipes, what stands beside them, and settings given as JSON."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import pytest

from loopwm.agent.config import MPC, Dyna, TerminalValue
from loopwm.agent.life import Life
from loopwm.agent.recipes import RECIPES, algorithm_for, recipe_for, variant_of, with_settings
from loopwm.core.depth import Fixed
from loopwm.data.excitation import OrnsteinUhlenbeck, Uniform
from loopwm.data.normalise import Statistics
from loopwm.errors import ConfigError
from loopwm.train.config import Muon
from loopwm.world.build import build
from loopwm.world.config import MLP, WorldConfig
from loopwm.world.terms import Objective

DYNAS = [env_id for env_id, recipe in RECIPES.items() if isinstance(recipe.algorithm, Dyna)]


def parameters(env_id: str, algorithm: MPC | Dyna) -> int:
    life = Life(env_id, seed=0)
    life.step(life.space.sample())
    data = life.dataset()
    refit = algorithm.refit
    return refit.members * build(refit.model, data.meta, Statistics.of(data), 0).num_parameters


@pytest.mark.parametrize("env_id", RECIPES)
def test_the_ensemble_of_perceptrons_has_four_times_the_parameters_at_least(env_id: str):
    algorithm = RECIPES[env_id].algorithm
    beside = variant_of(algorithm, "mlp")
    assert isinstance(beside.refit.model, MLP)
    assert beside.refit.members > 1
    assert parameters(env_id, beside) >= 4 * parameters(env_id, algorithm)


@pytest.mark.parametrize("env_id", DYNAS)
def test_with_imagination_off_there_are_as_many_updates(env_id: str):
    algorithm: Any = RECIPES[env_id].algorithm
    off: Any = variant_of(algorithm, "real")
    assert not off.imagines
    assert off.learner == algorithm.learner
    usual: Any = variant_of(algorithm, "sac")
    assert (usual.learner.updates, usual.imagines) == (1, False)
    assert variant_of(algorithm, "looped") is algorithm


def test_the_plain_variant_has_the_settings_of_stable_baselines():
    sb3 = pytest.importorskip("stable_baselines3")
    from loopwm.agent.soft import soft_actor_critic_for

    usual: Any = variant_of(Dyna(), "sac")
    env = gym.make("Pendulum-v1")
    ours = soft_actor_critic_for(usual.learner, 3, env.action_space)  # pyright: ignore[reportArgumentType]
    theirs = sb3.SAC("MlpPolicy", env, device="cpu", buffer_size=1)
    for name in ("learning_rate", "batch_size", "tau", "gamma", "gradient_steps"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.target_entropy == theirs.target_entropy
    assert ours.log_ent_coef.item() == theirs.log_ent_coef.item()
    shapes = [[each.shape for each in model.policy.parameters()] for model in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_an_algorithm_is_chosen_by_name_or_by_what_was_found_to_work():
    assert algorithm_for("Pendulum-v1") is RECIPES["Pendulum-v1"].algorithm
    assert algorithm_for("Pendulum-v1", "dyna") is RECIPES["Pendulum-v1"].algorithm
    assert algorithm_for("Pendulum-v1", "mpc") == MPC()
    assert algorithm_for("Unheard-v0") == MPC()
    assert recipe_for("Pendulum-v1") is recipe_for("Pendulum-v1", "dyna") is RECIPES["Pendulum-v1"]
    assert recipe_for("Pendulum-v1", "mpc") is recipe_for("Unheard-v0") is None


def test_settings_replace_what_they_name_and_nothing_else():
    changed = with_settings(MPC(), {"noise": 0, "refit": {"every": 7, "fit": {"updates": 3}}})
    assert (changed.noise, changed.refit.every, changed.refit.fit.updates) == (0, 7, 3)
    assert changed.refit.first == MPC().refit.first
    assert changed.planning == MPC().planning
    deep = with_settings(MPC(), {"refit": {"model": {"width": 8}}})
    usual = MPC().refit.model
    assert isinstance(usual, WorldConfig)
    assert deep.refit.model == replace(usual, width=8)
    assert with_settings(Dyna(), {"learner": {"actor": [4, 4]}}).learner.actor == (4, 4)


def test_where_there_is_a_choice_a_setting_can_name_another_type():
    usual = Dyna()
    assert isinstance(usual.refit.model, WorldConfig)
    by_name = with_settings(usual, {"refit": {"fit": {"optimizer": "Muon", "lr": 5e-3}}})
    assert by_name.refit.fit == replace(usual.refit.fit, optimizer=Muon(), lr=5e-3)
    model = {"type": "MLP", "width": 16, "objective": {"reward": 1.0}}
    other = with_settings(usual, {"refit": {"model": model}})
    assert other.refit.model == MLP(width=16, objective=Objective(reward=1.0))
    same = with_settings(usual, {"refit": {"model": {"type": "WorldConfig", "depth": "Fixed"}}})
    assert same.refit.model == replace(usual.refit.model, depth=Fixed())
    wide = with_settings(usual, {"refit": {"excitation": {"sigma": 0.1}}})
    assert wide.refit.excitation == OrnsteinUhlenbeck(sigma=0.1)
    plain = with_settings(usual, {"refit": {"excitation": "Uniform"}})
    assert plain.refit.excitation == Uniform()


def test_a_group_that_is_missing_is_begun_at_its_defaults_and_one_can_be_left_out():
    learned = with_settings(MPC(), {"value": {"updates": 30}})
    assert learned == MPC(value=TerminalValue(updates=30))
    assert with_settings(MPC(), {"value": {}}).value == TerminalValue()
    assert with_settings(learned, {"value": {"trace": 0.5}}).value == TerminalValue(30, trace=0.5)
    assert with_settings(learned, {"value": None}) == MPC()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value": {"updat": 1}}, r"no setting 'value\.updat'"),
        ({"value": 3}, "'value' is a group"),
        ({"refit": None}, "'refit' is a group"),
        ({"nois": 1}, "no setting 'nois'; did you mean 'noise'"),
        ({"temperature": 1}, "no setting 'temperature'; settings of MPC: noise, planning"),
        ({"refit": {"fit": {"lrr": 1}}}, r"no setting 'refit\.fit\.lrr'"),
        ({"refit": 3}, "'refit' is a group"),
        ({"refit": {"model": "mlp"}}, r"'refit\.model' has no type 'mlp'; did you mean 'MLP'"),
        ({"refit": {"fit": {"optimizer": {"type": 3}}}}, "no type 3; known: AdamW, Muon"),
        ({"refit": "Muon"}, "'refit' has no type 'Muon'; known: Refit"),
        ({"refit": {"model": {"type": ["MLP"]}}}, "'refit.model' has no type"),
        ({"noise": 3}, r"MPC\.noise must lie"),
        ({"noise": "loud"}, "does not take"),
    ],
)
def test_settings_that_are_none_are_named(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        with_settings(MPC(), settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner": {"actor": 64}}, r"SoftActorCritic\.actor must hold whole numbers"),
        ({"learner": {"actor": ["a"]}}, r"SoftActorCritic\.actor must hold whole numbers"),
        ({"learner": {"critic": [0]}}, r"SoftActorCritic\.critic must hold whole numbers"),
        ({"learner": {"target_entropy": "x"}}, "target_entropy must be a number or None"),
        (
            {"learner": {"batch_size": 2.5}},
            r"batch_size must be a whole number from 2 up, got 2\.5",
        ),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_settings_of_another_type_are_named(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        with_settings(Dyna(), settings)


@pytest.mark.parametrize("name", ["depth", "candidates"])
@pytest.mark.usefixtures("without_shape_checks")
def test_counts_of_a_plan_are_whole(name: str):
    with pytest.raises(ConfigError, match=rf"Planning\.{name} must be a whole number.*got 2\.5"):
        with_settings(MPC(), {"planning": {name: 2.5}})


def test_variants_that_do_not_exist_are_named():
    with pytest.raises(ConfigError, match="MPC has no variant 'real'"):
        variant_of(MPC(), "real")
