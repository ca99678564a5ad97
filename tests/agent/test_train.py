"""A run counts its steps, says how it fares, and after any stop ends as if it had had none."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from loopwm.agent.codec import decode, encode
from loopwm.agent.config import (
    MPC,
    Algorithm,
    Dyna,
    Planning,
    Refit,
    SoftActorCritic,
    TerminalValue,
)
from loopwm.agent.evaluate import evaluate_agent
from loopwm.agent.life import Life
from loopwm.agent.refits import newest_long_enough
from loopwm.agent.score import Scoring
from loopwm.agent.train import load_agent, train_agent
from loopwm.core.depth import Fixed
from loopwm.errors import CheckpointError, ConfigError, DataError, StoreError
from loopwm.files import write_tree
from loopwm.train.config import FitConfig
from loopwm.world.config import MLP, Objective, WorldConfig
from tests.agent.worlds import Levers, NarrowEnv, PointEnv, best_return

TINY = Refit(
    model=WorldConfig(width=8, depth=Fixed(1)),
    fit=FitConfig(updates=10, batch_size=16, horizon=1, progress=False),
    updates=5,
    first=20,
    every=15,
)
PLANS = MPC(refit=TINY, planning=Planning(horizon=2, candidates=8, iterations=2))
VALUES = replace(PLANS, value=TerminalValue(updates=8, sweeps=2, width=(8,)))
REMEMBERS = replace(
    PLANS,
    refit=replace(TINY, model=WorldConfig(width=8, depth=Fixed(1), frames=2)),
    planning=replace(PLANS.planning, memory=True),
)
PRACTISES = Dyna(
    refit=replace(TINY, members=2),
    learner=SoftActorCritic(updates=2, batch_size=16, actor=(8,), critic=(8,)),
    horizon=2,
    rollouts=3,
)
ALL = pytest.mark.parametrize(
    "algorithm",
    [PLANS, VALUES, REMEMBERS, PRACTISES],
    ids=["mpc", "value", "memory", "dyna"],
)
QUIET: Any = {"progress": False, "scoring": Scoring(every=30, episodes=2)}

# Whole runs call small functions many thousand times; the checks would take most of the time.
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@ALL
def test_steps_are_counted_exactly_and_a_round_leaves_a_record(algorithm: Algorithm):
    agent = train_agent(PointEnv, algorithm, 57, **QUIET)
    assert len(agent.data) == 57
    assert [each["step"] for each in agent.history] == [20, 30, 45, 57]
    assert [("real_return" in each) for each in agent.history] == [False, True, False, True]
    for record in agent.history:
        if "returns" in record:
            assert len(record["returns"]) == 2
            assert record["real_return"] == pytest.approx(np.mean(record["returns"]))
            assert np.isfinite(record["imagined_return"])
    # Three episodes of ten steps ended in each of these rounds.
    ends = agent.data.bounds
    totals = [agent.data.reward[a:b].sum() for a, b in pairwise(ends)]
    assert agent.history[0]["return"] == pytest.approx(np.mean(totals[:2]))
    assert agent.history[1]["return"] == pytest.approx(totals[2])


class Stops(Exception):
    """Stand for a kill."""


def stopping(step: int) -> type[PointEnv]:
    """Return an environment that dies at its n-th step, counted over all its copies."""
    made = {"steps": 0}

    class Dies(PointEnv):
        def step(self, action: Any):
            made["steps"] += 1
            if made["steps"] == step:
                raise Stops
            return super().step(action)

    return Dies


@ALL
@pytest.mark.parametrize(
    "step", [75, *(pytest.param(n, marks=pytest.mark.slow) for n in (10, 33, 95))]
)
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    algorithm: Algorithm, step: int, tmp_path: Path
):
    env = stopping(step)
    with pytest.raises(Stops):
        train_agent(env, algorithm, 70, run_dir=tmp_path, **QUIET)
    resumed = train_agent(env, algorithm, 70, run_dir=tmp_path, **QUIET)
    straight = train_agent(PointEnv, algorithm, 70, **QUIET)
    assert timeless(resumed.history) == timeless(straight.history)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [r["step"] for r in straight.history]
    for name in ("obs", "action", "reward"):
        one, two = getattr(resumed.data, name), getattr(straight.data, name)
        np.testing.assert_array_equal(one, two)
    seen = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    resumed.reset()
    straight.reset()
    np.testing.assert_array_equal(resumed.plan(seen), straight.plan(seen))


@ALL
def test_an_agent_read_from_its_run_acts_as_the_one_that_was_returned(
    algorithm: Algorithm, tmp_path: Path
):
    agent = train_agent(PointEnv, algorithm, 50, run_dir=tmp_path, **QUIET)
    again = load_agent(tmp_path)
    assert again.algorithm == algorithm
    assert again.history == agent.history
    one, two = (evaluate_agent(each, PointEnv, episodes=3) for each in (agent, again))
    np.testing.assert_array_equal(one.returns, two.returns)
    files = [file.suffix for file in tmp_path.rglob("*") if file.is_file()]
    assert set(files) <= {".json", ".jsonl", ".safetensors", ""}
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("algorithm", [PLANS, PRACTISES], ids=["mpc", "dyna"])
def test_bounds_that_32_bits_cannot_hold_are_kept_in_every_step(
    algorithm: Algorithm, tmp_path: Path
):
    agent = train_agent(NarrowEnv, algorithm, 40, run_dir=tmp_path, **QUIET)
    assert "real_return" in agent.history[-1]
    assert len(train_agent(NarrowEnv, algorithm, 50, run_dir=tmp_path, **QUIET).data) == 50


def test_an_evaluation_that_fails_costs_no_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any, **__: Any) -> Any:
        raise Stops

    with monkeypatch.context() as patch:
        patch.setattr("loopwm.agent.train.score", fails)
        with pytest.raises(Stops):
            train_agent(PointEnv, PLANS, 45, run_dir=tmp_path, **QUIET)
    assert len(load_agent(tmp_path).data) == 30
    again = train_agent(PointEnv, PLANS, 45, run_dir=tmp_path, **QUIET)
    straight = train_agent(PointEnv, PLANS, 45, **QUIET)
    assert timeless(again.history) == timeless(straight.history)


def test_more_steps_carry_a_finished_run_on(tmp_path: Path):
    train_agent(PointEnv, PRACTISES, 45, run_dir=tmp_path, **QUIET)
    further = train_agent(PointEnv, PRACTISES, 60, run_dir=tmp_path, **QUIET)
    straight = train_agent(PointEnv, PRACTISES, 60, **QUIET)
    np.testing.assert_array_equal(further.data.action, straight.data.action)


@ALL
def test_a_run_carried_on_between_two_refits_makes_the_steps_of_one_run(
    algorithm: Algorithm, tmp_path: Path
):
    train_agent(PointEnv, algorithm, 37, run_dir=tmp_path, **QUIET)
    further = train_agent(PointEnv, algorithm, 50, run_dir=tmp_path, **QUIET)
    straight = train_agent(PointEnv, algorithm, 50, **QUIET)
    np.testing.assert_array_equal(further.data.action, straight.data.action)
    assert [each["step"] for each in further.history] == [20, 30, 37, 45, 50]


@pytest.mark.parametrize("first", [8, 20, 30, 35])
def test_the_first_model_comes_after_first_and_the_others_at_multiples_of_every(first: int):
    algorithm = replace(PLANS, refit=replace(TINY, first=first))
    how: Any = {"progress": False, "scoring": Scoring(episodes=0)}
    agent = train_agent(PointEnv, algorithm, 50, **how)
    steps = [each["step"] for each in agent.history if "model_error" in each]
    assert steps == [first, *(step for step in (15, 30, 45) if step > first)]
    assert agent.plan(np.zeros(1, np.float32)) in PointEnv.action_space


def test_what_a_model_says_that_is_no_number_is_recorded_as_none(tmp_path: Path):
    def nothing(obs: Any, action: Any, next_obs: Any) -> Any:
        return next_obs[..., 0] * float("nan")

    agent = train_agent(PointEnv, PLANS, 30, run_dir=tmp_path, reward_fn=nothing, **QUIET)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last == agent.history[-1]
    assert last["imagined_return"] is None
    assert np.isfinite(last["real_return"])


def test_a_newest_episode_too_short_to_validate_on_stops_no_run():
    model = replace(TINY.model, objective=Objective(context=3))
    algorithm = replace(PLANS, refit=replace(TINY, model=model, first=21))
    assert train_agent(PointEnv, algorithm, 21, **QUIET).data.bounds.tolist() == [0, 10, 20, 21]


def test_validation_is_on_the_newest_episode_of_so_many_steps_or_on_all_data():
    life = Life(PointEnv, seed=0)
    for _ in range(23):
        life.step(np.zeros(1, np.float32))
    data = life.dataset()
    for length, rows in ((3, slice(20, 23)), (4, slice(10, 20)), (11, slice(0, 23))):
        found = newest_long_enough(data, length)
        np.testing.assert_array_equal(found.obs, data.obs[rows])


def test_fits_inside_a_run_show_no_bars_of_their_own(capsys: pytest.CaptureFixture[str]):
    loud = replace(TINY, fit=replace(TINY.fit, progress=True))
    train_agent(PointEnv, replace(PLANS, refit=loud), 20, **QUIET)
    assert capsys.readouterr().err == ""


def test_other_settings_in_the_same_directory_are_refused(tmp_path: Path):
    train_agent(PointEnv, PLANS, 20, run_dir=tmp_path, **QUIET)
    with pytest.raises(CheckpointError, match=r"algorithm\.noise was 0\.1 and is now 0\.2"):
        train_agent(PointEnv, replace(PLANS, noise=0.2), 20, run_dir=tmp_path, **QUIET)
    with pytest.raises(CheckpointError, match="seed was 0 and is now 1"):
        train_agent(PointEnv, PLANS, 20, seed=1, run_dir=tmp_path, **QUIET)


def test_a_function_that_makes_another_environment_is_another_run(tmp_path: Path):
    class Wide(PointEnv):
        action_space = Box(-2.0, 2.0, (1,), np.float32)

    made: dict[str, Any] = {"kind": PointEnv}

    def make() -> PointEnv:
        return made["kind"]()

    train_agent(make, PLANS, 20, run_dir=tmp_path, **QUIET)
    train_agent(make, PLANS, 20, run_dir=tmp_path, **QUIET)
    made["kind"] = Wide
    with pytest.raises(CheckpointError, match=r"spaces\.action_high was \[1\.0\] and is now"):
        train_agent(make, PLANS, 20, run_dir=tmp_path, **QUIET)


def test_a_policy_takes_lists_one_row_several_and_none():
    agent = train_agent(PointEnv, PRACTISES, 20, **QUIET)
    one = agent.plan([0.25])
    np.testing.assert_array_equal(agent.plan([[0.25], [0.5]])[0], one)
    assert agent.plan(np.zeros((0, 1), np.float32)).shape == (0, 1)
    with pytest.raises(DataError, match=r"obs must have the shape \[O\] or \[B, O\]"):
        agent.plan(np.zeros((1, 1, 1)))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path):
    train_agent(PointEnv, PLANS, 50, run_dir=tmp_path, **QUIET)
    newest = max((tmp_path / "checkpoints").iterdir())
    (newest / "manifest.json").write_text("{}")
    assert len(load_agent(tmp_path).data) == 45
    again = train_agent(PointEnv, PLANS, 50, run_dir=tmp_path, **QUIET)
    assert len(again.data) == 50


def test_known_reward_and_termination_take_the_place_of_learned_ones(tmp_path: Path):
    def reward(obs: Any, action: Any, next_obs: Any) -> Any:
        return -next_obs[..., 0].abs()

    def never(obs: Any, action: Any, next_obs: Any) -> Any:
        return next_obs[..., 0] > 1e9

    known: Any = {"reward_fn": reward, "termination_fn": never}
    agent = train_agent(PointEnv, PLANS, 20, run_dir=tmp_path, **known, **QUIET)
    assert agent.model is not None
    said = agent.model.predict(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    assert said.reward[0] == pytest.approx(-abs(said.next_obs[0, 0]), rel=1e-5)
    assert said.terminated[0] == 0
    obs = np.full(1, 0.3, np.float32)
    np.testing.assert_array_equal(load_agent(tmp_path, **known).plan(obs), agent.plan(obs))
    with pytest.raises(ConfigError, match=r"trained with reward_fn=.*reward"):
        load_agent(tmp_path)
    with pytest.raises(CheckpointError, match=r"functions\.reward_fn"):
        train_agent(PointEnv, PLANS, 20, run_dir=tmp_path, **QUIET)


def test_a_function_that_the_agent_was_trained_without_is_refused(tmp_path: Path):
    train_agent(PointEnv, PLANS, 20, run_dir=tmp_path, **QUIET)
    with pytest.raises(ConfigError, match="trained without reward_fn: leave reward_fn= out"):
        load_agent(tmp_path, reward_fn=lambda obs, action, next_obs: next_obs[..., 0])


def test_where_no_episode_is_ended_none_is_imagined_to_end(tmp_path: Path):
    how: Any = {"env_kwargs": {"terminate_when_unhealthy": False}, "run_dir": tmp_path}
    how |= {"scoring": Scoring(episodes=0), "progress": False}
    train_agent("Hopper-v5", PLANS, 20, **how)
    for agent in (load_agent(tmp_path), train_agent("Hopper-v5", PLANS, 35, **how)):
        assert agent.model is not None
        said = agent.model.predict(agent.data.obs, agent.data.action)
        assert (said.terminated == 0).all()


@pytest.mark.slow
def test_the_planner_learns_the_point_in_sixty_steps():
    refit = replace(TINY, fit=replace(TINY.fit, updates=300), updates=100, first=30)
    algorithm = MPC(refit=refit, planning=Planning(horizon=3, candidates=64))
    agent = train_agent(PointEnv, algorithm, 60, scoring=Scoring(episodes=0), progress=False)
    report = evaluate_agent(agent, PointEnv, episodes=10)
    idle = evaluate_agent(lambda obs: np.zeros(1, np.float32), PointEnv, episodes=10)
    best = np.mean([best_return(total / PointEnv.length) for total in idle.returns])
    # At least four fifths of what can be gained over doing nothing.
    assert (report.mean - idle.mean) / (best - idle.mean) > 0.8


def test_discrete_actions_are_planned_and_recorded():
    agent = train_agent(Levers, PLANS, 40, **QUIET)
    assert agent.data.discrete
    assert agent.plan(np.zeros(2, np.float32)) in (0, 1, 2)


@pytest.mark.parametrize(
    "algorithm",
    [
        PLANS,
        VALUES,
        PRACTISES,
        MPC(refit=replace(TINY, model=MLP(width=8, depth=1))),
        MPC(),
        Dyna(),
    ],
)
def test_configurations_read_back_from_json_as_they_were(algorithm: Algorithm):
    assert decode(json.loads(json.dumps(encode(algorithm))), "here") == algorithm


def test_what_is_no_agent_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="holds no agent"):
        load_agent(tmp_path / "nothing")
    folder = tmp_path / "model" / "checkpoints" / "000000005"
    write_tree(folder, {}, {"identity": {}, "progress": {}})
    with pytest.raises(StoreError, match="holds no agent but a checkpoint of another training"):
        train_agent(PointEnv, PLANS, 20, run_dir=tmp_path / "model", **QUIET)
    with pytest.raises(StoreError, match="no configuration of an agent"):
        decode(encode(FitConfig()), "here")
    with pytest.raises(StoreError, match="settings of MPC"):
        decode(encode(MPC()) | {"noise": 7}, "here")


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        train_agent(PointEnv, PLANS, 0)
    with pytest.raises(ConfigError, match=r"at least refit\.first=20"):
        train_agent(PointEnv, PLANS, 19)
    with pytest.raises(ConfigError, match=r"lw\.MPC"):
        train_agent(PointEnv, "mpc", 10)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"Scoring\.every"):
        Scoring(every=0)
