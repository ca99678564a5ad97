"""Plans are judged against the simulator itself: it is a perfect model, its opposite the worst."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.data.meta import DatasetMeta
from loopwm.data.simulator import Played, play
from loopwm.errors import ConfigError, DataError, EnvironmentUnsupported
from loopwm.study import candidates, planning
from loopwm.study.bench import fresh_model
from loopwm.study.bench_plan import PlanBench, bench_plan
from loopwm.study.candidates import Trial, simulated_candidates
from loopwm.study.planning import depth_choices, evaluate_planning, planning_sheet
from loopwm.study.plans import planning_sheets

TRIAL = Trial(states=6, candidates=24, horizon=12, discount=0.9)


class Simulator:
    """The simulator with the verbs of a model; its reward may be turned round, or broken."""

    def __init__(self, meta: DatasetMeta, sign: float = 1.0, broken: bool = False) -> None:
        self.meta, self.sign, self.broken = meta, sign, broken

    def start(self, obs: Any) -> tuple[torch.Tensor, ...]:
        return (torch.as_tensor(obs),)

    def observe(self, state: Any, action: Any, obs: Any) -> Any:
        return self.start(obs)

    def step(self, state: Any, action: Any) -> Any:
        seen = play(self.meta, state[0].numpy(), action.numpy()[:, None])
        ones = np.ones(len(seen.reward))
        reward = self.sign * seen.reward[:, 0]
        if self.broken:
            reward[::2] = np.nan
        return (torch.as_tensor(seen.obs[:, 0]),), lw.Prediction(
            next_obs=seen.obs[:, 0],
            reward=reward,
            terminated=seen.terminated[:, 0].astype(float),
            n_iters=3 * ones.astype(int),
            residual=ones,
            settled=ones,
        )


@pytest.fixture(scope="module")
def unclipped() -> lw.RolloutDataset:
    return lw.collect("Hopper-v5", 400, seed=0, unclipped=True, progress=False)


def test_the_simulator_ranks_as_itself_and_its_opposite_the_other_way(unclipped):
    given = simulated_candidates(unclipped, TRIAL)
    perfect = evaluate_planning(Simulator(unclipped.meta), given)
    assert perfect.rank_correlation == pytest.approx((1, 1, 1), abs=1e-3)
    assert perfect.regret[0] == pytest.approx(0, abs=1e-6)
    assert perfect.ends > 0
    assert perfect.recall == (1, 1, 1)
    assert perfect.false_alarm[0] == 0
    assert perfect.iterations == 3
    assert (perfect.states, perfect.candidates, perfect.horizon) == (6, 24, 12)
    # Turned round it chooses the worst, since all rewards here are positive.
    worst = evaluate_planning(Simulator(unclipped.meta, -1.0), given)
    assert worst.rank_correlation[0] == pytest.approx(-1, abs=1e-3)
    best, low, mean = (getattr(given.returns, f)(1) for f in ("max", "min", "mean"))
    assert worst.regret[0] == pytest.approx((best - low).sum() / (best - mean).sum(), rel=1e-6)
    assert worst.shortfall[0] == pytest.approx((best - low).mean(), rel=1e-6)


def test_the_first_candidate_gains_what_was_recorded(unclipped):
    given = simulated_candidates(unclipped, TRIAL)
    for obs, actions, returns, ends in zip(
        given.obs, given.actions, given.returns, given.ends, strict=True
    ):
        row = int(np.flatnonzero((unclipped.obs == obs).all(1))[0])
        steps = slice(row, row + 12)
        assert (actions[0] == unclipped.action[steps]).all()
        recorded = (0.9 ** np.arange(12) * unclipped.reward[steps]).sum()
        assert returns[0] == pytest.approx(recorded, rel=1e-4)
        assert ends[0] == unclipped.terminated[steps].any()
    assert (np.abs(given.actions) <= 1).all()


def test_rewards_after_the_end_do_not_count(unclipped):
    given = simulated_candidates(unclipped, TRIAL)
    row, column = np.argwhere(given.ends)[0]
    seen = play(unclipped.meta, given.obs[row : row + 1], given.actions[row, column][None])
    last = int(seen.terminated[0].argmax())
    expected = sum(0.9**k * seen.reward[0, k] for k in range(last + 1))
    assert given.returns[row, column] == pytest.approx(expected, rel=1e-9)


def test_a_simulation_may_diverge_after_the_end_but_not_before(unclipped, monkeypatch):
    def diverging(meta: Any, obs: np.ndarray, actions: np.ndarray) -> Played:
        reward, ends = np.ones(actions.shape[:2]), np.zeros(actions.shape[:2], bool)
        reward[:, 2:], ends[1::2, 1] = np.nan, True
        return Played(np.zeros((*reward.shape, 11)), reward, ends)

    monkeypatch.setattr(candidates, "play", diverging)
    given = simulated_candidates(unclipped, TRIAL)
    assert np.isnan(given.returns[:, ::2]).all()
    assert given.returns[:, 1::2] == pytest.approx(1.9)
    report = evaluate_planning(fresh_model(lw.MLP(width=8), unclipped), given)
    assert report.diverged == 0.5


def test_what_is_not_finite_is_ranked_last(unclipped):
    given = simulated_candidates(unclipped, replace(TRIAL, states=2))
    broken = evaluate_planning(Simulator(unclipped.meta, broken=True), given)
    chosen = np.nanmax(given.returns[:, 1::2], axis=1)
    expected = (given.returns.max(1) - chosen).mean()
    assert broken.shortfall[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("said", [np.nan, 0.0])
def test_a_model_that_tells_no_candidate_from_another_chooses_by_chance(unclipped, said: float):
    given = simulated_candidates(unclipped, TRIAL)
    returns = np.full_like(given.returns, said)
    for true, each in zip(given.returns, returns, strict=True):
        rank, missed, chance = planning._judged(true, each)
        assert rank == 0
        assert missed == pytest.approx(chance)
    # Of two that it calls best, either may be taken.
    assert planning._judged(np.array([1.0, 3.0, 0.0]), np.array([2.0, 2.0, 1.0]))[1] == 1.0


def test_states_where_all_candidates_gain_the_same_tell_nothing_of_regret(unclipped):
    given = simulated_candidates(unclipped, replace(TRIAL, states=3, horizon=2))
    same = given.episode == given.episode[0]
    equal = np.where(same[:, None], 0.1, given.returns)
    # Here rounding takes the mean of equal numbers beyond them.
    assert equal[0].mean() > equal[0].max()
    report = evaluate_planning(Simulator(unclipped.meta, -1.0), replace(given, returns=equal))
    best, low, mean = (getattr(given.returns[~same], f)(1) for f in ("max", "min", "mean"))
    assert report.regret[0] == pytest.approx((best - low).sum() / (best - mean).sum(), rel=1e-6)


def test_every_choice_of_depth_is_measured(unclipped):
    model = fresh_model(lw.WorldConfig(width=8), unclipped)
    given = simulated_candidates(unclipped, replace(TRIAL, states=2))
    reports = {
        name: evaluate_planning(model, given, halt=halt) for name, halt in depth_choices().items()
    }
    assert reports["the model's default"].iterations == 8
    assert reports["fixed, 4"].iterations == 4
    counts = {each.iterations for each in reports.values()}
    assert len(counts) > 3
    assert all(each.cpu_ms > 0 for each in reports.values())
    sheet = planning_sheet(reports)
    assert [row["name"] for row in sheet.rows] == list(depth_choices())
    assert "24 candidates of 12 steps at 2 states" in sheet.title


def test_the_report_prints_and_is_json(unclipped):
    model = fresh_model(lw.WorldConfig(width=8), unclipped)
    report = lw.evaluate_planning(model, unclipped, replace(TRIAL, states=2, horizon=1))
    assert "rank correlation" in str(report)
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))


def test_the_study_compares_arms_with_the_rule_learned_and_known(unclipped):
    looped, other = (fresh_model(c, unclipped) for c in (lw.WorldConfig(width=8), lw.MLP(width=8)))
    both = lw.Ensemble([fresh_model(lw.MLP(width=8), unclipped, seed) for seed in range(2)])
    models = {"looped": [looped, looped], "MLP": [other], "ensemble": [both]}
    learned, known, depths = planning_sheets(models, unclipped, replace(TRIAL, states=2))
    assert [row["model"] for row in learned.rows] == list(models)
    middle, low, high = learned.rows[0]["rank_correlation"]
    assert middle == pytest.approx(low) == pytest.approx(high)
    assert known.rows != learned.rows
    assert len(depths.rows) == len(depth_choices())
    assert looped.termination_fn is None
    endless = replace(
        unclipped,
        terminated=np.zeros_like(unclipped.terminated),
        truncated=unclipped.truncated | unclipped.terminated,
    )
    again, _ = planning_sheets(models, endless, replace(TRIAL, states=2))
    assert again.rows[0]["rank_correlation"] == learned.rows[0]["rank_correlation"]


def test_mistakes_are_named(unclipped, hopper):
    model = fresh_model(lw.WorldConfig(width=8), hopper)
    with pytest.raises(EnvironmentUnsupported, match="unclipped=True"):
        evaluate_planning(model, hopper)
    with pytest.raises(DataError, match="no episode of the data has 900 steps"):
        simulated_candidates(unclipped, Trial(horizon=900))
    for name, value in (("states", 0), ("candidates", 2), ("horizon", 0), ("seed", -1)):
        with pytest.raises(ConfigError, match=f"{name} must be at least"):
            Trial(**{name: value})
    with pytest.raises(ConfigError, match="discount"):
        Trial(discount=0.0)


def test_planners_are_timed_side_by_side():
    tiny = PlanBench("Pendulum-v1", 8, 2, 1, 2, 1, 1, lw.WorldConfig(width=8))
    sheet = bench_plan(tiny)
    names = [row["what"] for row in sheet.rows]
    for word in ("ICEM", "MPPI", "OutputDelta", "quantile", "ensemble of 5 MLP", "TD-MPC2"):
        assert any(word in name for name in names), word
    timed = [row for row in sheet.rows if "wall" in row]
    assert all(low <= middle <= high for middle, low, high in (row["cpu"] for row in timed))
    assert torch.get_num_threads() == 1
    with pytest.raises(ConfigError, match=r"PlanBench\.horizon must be at least 1"):
        PlanBench(horizon=0)
