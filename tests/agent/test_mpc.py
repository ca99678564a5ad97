"""Planning control reaches the best return of tiny environments whose model is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopwm.agent.config import MPC, Planning, Refit, TerminalValue
from loopwm.agent.evaluate import play
from loopwm.agent.life import Life
from loopwm.agent.mpc import MPCLearner, make_planner
from loopwm.agent.refits import Refits
from loopwm.errors import ConfigError
from tests.agent.known import Point, prediction
from tests.agent.worlds import Levers, PointEnv, best_return


class KnownPoint(Point):
    meta = Life(PointEnv, seed=0).meta


class KnownLevers:
    meta = Life(Levers, seed=0).meta

    def start(self, obs: Any) -> Any:
        return (torch.as_tensor(np.asarray(obs, np.float32)),)

    def observe(self, state: Any, action: Any, obs: Any) -> Any:
        return self.start(obs)

    def step(self, state: Any, action: Any) -> Any:
        choice = torch.as_tensor(np.asarray(action)).float()
        new = torch.stack([state[0][:, 0] + 1, choice], dim=1)
        return (new,), prediction(new, (choice == 1).float(), (choice == 0).float())


class Known(Refits):
    """Stand for the fits of a model that is known from the beginning."""

    def __init__(self, model: Any) -> None:
        super().__init__(Refit(), 0)
        self.model = model

    def fit(self, data: Any) -> dict[str, Any]:
        self.count += 1
        return {"model_error": None}

    def save(self, path: Path) -> dict[str, int]:
        return {}

    def restore(self, path: Path, counters: dict[str, int]) -> None: ...


@pytest.mark.parametrize("method", ["cem", "icem", "mppi"])
def test_every_planner_reaches_the_best_return_of_the_point(method: Any):
    planning = Planning(method=method, horizon=4, candidates=128, iterations=4)
    planner = make_planner(planning, KnownPoint(), PointEnv.action_space, 0)
    for episode in play(planner, PointEnv, 4, 0):
        best = best_return(float(episode.obs[0, 0]))
        # Near zero a planner's noise costs a few hundredths in each of ten steps.
        assert best - 0.35 < episode.reward.sum() <= best + 1e-5


def test_a_discrete_environment_is_planned_in_too():
    planner = make_planner(
        Planning(horizon=3, candidates=64), KnownLevers(), Levers.action_space, 0
    )
    assert type(planner).__name__ == "CEM"
    assert [each.reward.sum() for each in play(planner, Levers, 3, 0)] == [5.0, 5.0, 5.0]


def learner(noise: float, model: Any = None, **more: Any) -> MPCLearner:
    model, life = (model, Levers) if model else (KnownPoint(), PointEnv)
    refits = Known(model)
    config = MPC(planning=Planning(horizon=2, candidates=16), noise=noise, **more)
    found = MPCLearner(config, model.meta, refits, 0)
    assert not found.ready
    lived = Life(life, seed=0)
    lived.step(np.zeros(life.action_space.shape or (), life.action_space.dtype))
    found.refit(lived.dataset())
    return found


def test_what_is_planned_by_when_learning_and_after_is_the_value_of_the_last_refit():
    found = learner(0.0, value=TerminalValue(updates=2, sweeps=1, width=(4,)))
    first = found.value
    assert first is not None
    lived = Life(PointEnv, seed=0)
    lived.step(np.ones(1, np.float32))
    found.refit(lived.dataset())
    policy: Any = found.policy()
    assert policy.look.value is found.value is not first
    assert found.act(np.zeros(1, np.float32)) == policy.plan(np.zeros(1, np.float32))
    plain: Any = learner(0.0).policy()
    assert plain.look.value is None


def test_noise_has_the_stated_width_and_stays_inside_the_bounds():
    quiet, loud = learner(0.0), learner(0.2)
    at_rest = np.zeros(1, np.float32)
    plain = np.array([quiet.act(at_rest) for _ in range(300)])
    noisy = np.array([loud.act(at_rest) for _ in range(300)])
    assert np.abs(noisy).max() <= 1
    spread = np.sqrt(noisy.var() - plain.var())
    assert spread == pytest.approx(0.2, abs=0.04)


def test_a_learner_written_between_two_refits_draws_what_it_would_have_drawn(tmp_path: Path):
    first, second, old = (learner(0.2) for _ in range(3))
    obs = np.full(1, 0.3, np.float32)
    before = [first.act(obs) for _ in range(5)]
    tensors, document = first.save(tmp_path)
    document = json.loads(json.dumps(document))
    data = Life(PointEnv, seed=0)
    data.step(np.zeros(1, np.float32))
    second.restore(tmp_path, tensors, document, data.dataset())
    after = [first.act(obs) for _ in range(5)]
    np.testing.assert_array_equal([second.act(obs) for _ in range(5)], after)
    # What earlier versions wrote is read, and begins at the refit.
    del document["noise"], tensors["planner"]
    old.restore(tmp_path, tensors, document, data.dataset())
    np.testing.assert_array_equal([old.act(obs) for _ in range(5)], before)


def test_noise_on_discrete_actions_is_a_random_one_at_the_stated_rate():
    noisy = learner(0.3, KnownLevers())
    actions = np.array([noisy.act(np.zeros(2, np.float32)) for _ in range(400)])
    # A random action is another one in two of three cases; three standard errors.
    assert (actions != 1).mean() == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("method", ["icem", "mppi"])
def test_a_planner_of_continuous_actions_is_refused_before_any_step(method: Any):
    meta = Life(Levers, seed=0).meta
    with pytest.raises(ConfigError, match=r'planning\.method must be "cem" or None.*Levers'):
        MPCLearner(MPC(planning=Planning(method=method)), meta, Refits(Refit(), 0), 0)


@pytest.mark.usefixtures("without_shape_checks")
def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"MPC\.noise"):
        MPC(noise=2.0)
    with pytest.raises(ConfigError, match="method must be"):
        Planning(method="best")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"Planning\.candidates"):
        Planning(candidates=1)
    with pytest.raises(ConfigError, match=r"Refit\.fresh"):
        Refit(fresh=1.0)
    for endless in (float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"Refit\.fresh .*a large number such as 1e9"):
            Refit(fresh=endless)
    with pytest.raises(ConfigError, match=r"Refit\.every"):
        Refit(every=0)
