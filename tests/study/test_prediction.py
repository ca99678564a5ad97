"""Evaluation agrees with a slow loop, with models known exactly, and states what it measured."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError
from loopwm.study.accuracy import PredictionReport
from loopwm.study.notes import one_unit
from loopwm.study.paired import error_ratio
from loopwm.study.prediction import evaluate
from loopwm.study.reference import CopyLast, Linear
from loopwm.study.windows import Sampling
from loopwm.world.config import WorldConfig
from loopwm.world.ensemble import Ensemble

EVERY = Sampling(max_windows=10_000, ceiling_windows=0)
FEW = Sampling(max_windows=20, ceiling_windows=0)
HORIZONS = (1, 5, 15)


@dataclass
class Wrapped:
    """Pass the verbs on to a model and let `change` alter each prediction."""

    model: Linear
    change: Any

    @property
    def stats(self) -> Statistics:
        return self.model.stats

    def start(self, obs: torch.Tensor) -> Any:
        return self.model.start(obs)

    def observe(self, state: Any, action: torch.Tensor, obs: torch.Tensor) -> Any:
        return self.model.observe(state, action, obs)

    def step(self, state: Any, action: torch.Tensor, **options: Any) -> Any:
        state, out = self.model.step(state, action)
        return state, self.change(out, **options)


def slow_errors(model: Linear, test: RolloutDataset, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Roll every window by itself; return the last step's errors and the windows' episodes."""
    errors, episodes = [], []
    for row in range(len(test) - k + 1):
        if test.episode[row] != test.episode[row + k - 1]:
            continue
        state = model.start(torch.tensor(test.obs[row : row + 1], dtype=torch.float32))
        obs = test.obs[row]
        for step in range(k):
            action = torch.tensor(test.action[row + step : row + step + 1], dtype=torch.float32)
            state, out = model.step(state, action)
            obs = out.next_obs[0].numpy()
        errors.append(obs - test.next_obs[row + k - 1])
        episodes.append(test.episode[row])
    return np.array(errors), np.array(episodes)


@pytest.mark.parametrize("k", HORIZONS)
def test_errors_equal_those_of_a_slow_loop_over_every_window(world: Any, k: int) -> None:
    model = world.model(bias=np.array([0.02, -0.01, 0.05]))
    report = evaluate(model, world.test, HORIZONS, train=world.train, sampling=EVERY)
    error, episodes = slow_errors(model, world.test, k)
    std = world.train.obs.std(axis=0)
    scaled = error / std
    assert report.rmse[k] == pytest.approx(np.sqrt((scaled**2).mean()), rel=1e-5)
    changes = np.array(
        [
            world.train.next_obs[row + k - 1] - world.train.obs[row]
            for row in range(len(world.train) - k + 1)
            if world.train.episode[row] == world.train.episode[row + k - 1]
        ]
    )
    in_changes = error / changes.std(axis=0)
    assert report.rmse_change[k] == pytest.approx(np.sqrt((in_changes**2).mean()), rel=1e-5)
    sizes = np.sqrt((scaled**2).mean(axis=1))
    assert report.median[k] == pytest.approx(np.median(sizes), rel=0.02)
    assert report.quartiles[k] == pytest.approx(np.quantile(sizes, (0.25, 0.75)), rel=0.02)
    assert report.dimensions[k] == pytest.approx(np.sqrt((scaled**2).mean(axis=0)), rel=1e-5)
    assert report.windows[k] == len(error)
    assert report.episodes[k] == len(set(episodes))
    low, high = report.interval[k]
    assert low <= report.rmse[k] <= high


def test_the_exact_model_has_no_error_and_the_interval_closes(world: Any) -> None:
    report = evaluate(world.model(), world.test, HORIZONS, train=world.train, sampling=EVERY)
    for k in HORIZONS:
        # What remains is the rounding of observations and actions to float32.
        assert report.rmse[k] < 1e-5
        assert report.interval[k][1] < 1e-5
        assert report.reward[k] < 1e-5
        assert report.diverged[k] == 0
        assert report.iterations[k] == 1


def test_a_known_bias_gives_a_known_error_that_grows_with_the_steps(still_world: Any) -> None:
    bias = np.array([0.03, -0.02, 0.01])
    report = evaluate(still_world.model(bias), still_world.test, HORIZONS, sampling=EVERY)
    one_step = np.sqrt(((bias / still_world.train.obs.std(axis=0)) ** 2).mean())
    for k in HORIZONS:
        assert report.rmse[k] == pytest.approx(k * one_step, rel=1e-4)
        assert report.interval[k] == pytest.approx((k * one_step,) * 2, rel=1e-4)
        assert report.quartiles[k] == pytest.approx((k * one_step,) * 2, rel=1e-4)


@pytest.mark.parametrize("given", [True, False])
def test_the_linear_reference_recovers_a_linear_world(world: Any, given: bool) -> None:
    train = world.train if given else None
    report = evaluate(world.model(0.1), world.test, HORIZONS, train=train, sampling=EVERY)
    linear, copied = report.references["linear"], report.references["copy last"]
    for k in HORIZONS:
        assert linear.rmse[k] < 1e-3
        assert linear.windows[k] == report.windows[k]
        assert copied.rmse[k] > 0.1
    assert ("training set" in report.notes["linear"]) is given


def test_copy_last_errs_by_the_change_itself(world: Any) -> None:
    report = evaluate(world.model(), world.test, (1,), sampling=EVERY)
    change = (world.test.next_obs - world.test.obs) / world.train.obs.std(axis=0)
    copied = report.references["copy last"]
    assert copied.rmse[1] == pytest.approx(np.sqrt((change**2).mean()), rel=1e-5)


def test_each_part_is_scored_by_its_own_windows(world: Any) -> None:
    model = world.model(bias=0.05)
    report = evaluate(model, world.test, (5,), sampling=EVERY)
    for name in world.test.meta.parts:
        alone = evaluate(model, world.test.part(name), (5,), sampling=EVERY)
        assert report.parts[name].rmse[5] == pytest.approx(alone.rmse[5], rel=1e-6)
        assert report.parts[name].windows[5] == alone.windows[5]
        assert set(report.references["copy last"].parts) == {"first", "second"}


def test_a_horizon_longer_than_every_episode_has_no_windows_and_no_number(world: Any) -> None:
    report = evaluate(world.model(), world.test, (1, 500), sampling=EVERY)
    assert report.windows[500] == 0
    assert np.isnan(report.rmse[500])
    with pytest.raises(DataError, match="collect longer episodes"):
        evaluate(world.model(), world.test, (500,), sampling=EVERY)


def test_the_batch_size_does_not_change_the_numbers(world: Any) -> None:
    model = world.model(bias=0.05)
    whole, pieces = (
        evaluate(model, world.test, (5,), sampling=replace(EVERY, batch_size=size))
        for size in (1024, 7)
    )
    assert whole.rmse[5] == pytest.approx(pieces.rmse[5], rel=1e-6)


def test_the_same_seed_draws_the_same_windows_and_another_seed_others(world: Any) -> None:
    model = world.model(bias=np.array([0.1, 0.0, -0.2]))
    first, again = (evaluate(model, world.test, (5,), sampling=FEW) for _ in range(2))
    other = evaluate(model, world.test, (5,), sampling=replace(FEW, seed=1))
    assert first.rmse == again.rmse
    assert first.rmse != other.rmse
    assert first.windows[5] == 20


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_diverged_windows_are_counted_and_never_clamped(world: Any, bad: float) -> None:
    def explode(out: Any) -> Any:
        obs = out.next_obs.clone()
        obs[::4] = bad
        return replace(out, next_obs=obs)

    model = Wrapped(world.model(bias=0.05), explode)
    report = evaluate(model, world.test, (1,), sampling=EVERY)
    assert report.diverged[1] == pytest.approx(0.25, abs=0.01)
    assert np.isfinite(report.rmse[1]) == (bad == 1e30)
    assert report.rmse[1] > 1e6
    assert report.median[1] < 1
    assert not np.isnan(report.interval[1]).any()


def test_options_reach_every_imagined_step(world: Any) -> None:
    seen: list[dict[str, Any]] = []

    def remember(out: Any, **options: Any) -> Any:
        seen.append(options)
        return replace(out, n_iters=torch.full_like(out.n_iters, 7))

    model = Wrapped(world.model(), remember)
    report = evaluate(model, world.test, (3,), feedback="latent", halt="a rule", sampling=EVERY)
    assert all(each == {"feedback": "latent", "halt": "a rule"} for each in seen)
    assert report.iterations[3] == 7


def test_a_context_is_observed_before_the_open_loop_begins(world: Any) -> None:
    observed = []

    class Counting(Wrapped):
        def observe(self, state: Any, action: torch.Tensor, obs: torch.Tensor) -> Any:
            observed.append(obs)
            return super().observe(state, action, obs)

    model = Counting(world.model(bias=0.05), lambda out: out)
    warm = evaluate(model, world.test, (2,), context=16, sampling=EVERY)
    assert len(observed) % 15 == 0
    # The linear model forgets all but the last observation: the same windows, the same error.
    cold = evaluate(model, world.test, (2,), sampling=replace(EVERY, history=15))
    assert warm.rmse[2] == pytest.approx(cold.rmse[2], rel=1e-6)
    assert warm.windows == cold.windows


def test_termination_is_scored_where_it_could_happen(world: Any) -> None:
    def know(out: Any) -> Any:
        return replace(out, terminated=torch.full_like(out.terminated, 0.25))

    able = world.test.episode % 4 == 0
    test = replace(world.test, info={**world.test.info, "can_terminate": able})
    report = evaluate(Wrapped(world.model(), know), test, (1,), sampling=EVERY)
    ends = report.termination
    assert ends is not None
    truth = test.terminated[able].astype(float)
    assert (ends.rows, ends.events) == (able.sum(), truth.sum())
    assert ends.brier == pytest.approx(np.mean((0.25 - truth) ** 2))
    assert ends.auroc == 0.5


def test_spread_is_scored_in_units_of_the_training_set(world: Any) -> None:
    bias = 0.1 * world.train.obs.std(axis=0)
    std = torch.as_tensor(2 * bias)

    def spread(out: Any) -> Any:
        return replace(out, std=std.expand_as(out.next_obs))

    report = evaluate(Wrapped(world.model(bias), spread), world.test, (1,), sampling=EVERY)
    score = report.uncertainty[1]
    assert score.coverage == 1
    assert score.nll == pytest.approx(0.5 * 0.25 + np.log(0.2) + 0.5 * np.log(2 * np.pi), abs=1e-4)


def test_a_report_survives_json(world: Any) -> None:
    def explode(out: Any) -> Any:
        return replace(out, next_obs=out.next_obs * np.inf, std=torch.ones_like(out.next_obs))

    report = evaluate(Wrapped(world.model(), explode), world.test, (1, 500), sampling=EVERY)
    back = PredictionReport.from_json(report.to_json())
    assert back.to_json() == report.to_json()
    assert back.rmse[1] == np.inf
    assert set(back.references) == set(report.references)
    assert back.horizons == (1, 500)


def test_a_report_says_its_numbers_windows_and_rules(world: Any) -> None:
    report = evaluate(world.model(0.05), world.test, (1, 5), sampling=EVERY)
    text = str(report)
    for part in ("copy last", "linear", "windows", "diverged", "AUROC", "second", "bootstrap"):
        assert part in text
    assert "RMSE [95%]" in text
    assert "median [quartiles]" in text
    assert report.seconds == pytest.approx({1: 0.05, 5: 0.25})


def test_a_report_says_to_what_range_the_model_holds_itself(world: Any, untrained: Any) -> None:
    def note(model: Any) -> str:
        return evaluate(model, world.test, (1,), sampling=FEW).notes["margin"]

    held, free = untrained(), untrained(WorldConfig(width=8, margin=None))
    assert "training range and 0.1 of it" in note(held)
    assert "training range and 0.5 of it" in note(untrained(WorldConfig(width=8, margin=0.5)))
    assert "no range" in note(free)
    assert "no range" in note(world.model())
    assert note(Ensemble([held, held])) == note(held)
    assert note(Ensemble([free, free])) == note(free)
    carries = untrained(WorldConfig(width=8))
    latent = evaluate(carries, world.test, (1,), sampling=FEW, feedback="latent").notes["margin"]
    assert (note(carries), latent) == (note(held), note(free))
    ours = world.model()
    ours.members = 5
    assert "no range" in note(ours)


def test_without_a_simulator_the_ceiling_says_why_it_is_missing(world: Any) -> None:
    report = evaluate(world.model(0.05), world.test, (1, 5))
    assert "ceiling" not in report.references
    assert "left out" in report.notes["ceiling"]


def test_mistakes_name_argument_value_and_remedy(world: Any) -> None:
    model = world.model()
    with pytest.raises(ConfigError, match="horizons must be"):
        evaluate(model, world.test, (0, 1))
    with pytest.raises(ConfigError, match="context must be at least 1, got 0"):
        evaluate(model, world.test, context=0)
    with pytest.raises(ConfigError, match="raise history"):
        evaluate(model, world.test, context=16, sampling=Sampling(history=3))
    with pytest.raises(ConfigError, match="max_windows"):
        Sampling(max_windows=0)


def test_reports_with_one_training_set_are_in_one_unit_whatever_the_models_were_trained_on(
    world: Any,
) -> None:
    stats = world.model().stats
    wide = replace(stats, obs_std=4 * stats.obs_std)
    models = [CopyLast(stats) for stats in (stats, wide)]
    one, two = (
        evaluate(each, world.test, (1, 5), train=world.test, sampling=FEW) for each in models
    )
    assert one.rmse == two.rmse
    assert one_unit([one, two])
    apart = [evaluate(each, world.test, (1, 5), sampling=FEW) for each in models]
    assert apart[1].rmse[5] == pytest.approx(apart[0].rmse[5] / 4, rel=1e-5)
    assert not one_unit(apart)
    assert error_ratio([apart[0]], [apart[1]], 5) is None
    assert error_ratio([one], [two], 5) is not None


def test_without_a_simulator_there_is_no_ceiling_at_one_step_either() -> None:
    cart = lw.collect("CartPole-v1", 200, progress=False)
    report = evaluate(CopyLast(Statistics.of(cart)), cart, (1,), sampling=Sampling(max_windows=20))
    assert "ceiling" not in report.references
    assert report.notes["ceiling"].startswith("left out")


def test_a_training_set_of_another_environment_is_refused(world: Any) -> None:
    fewer = world.test.keep_obs([0])
    with pytest.raises(DataError, match="train has 1 observation dimensions"):
        evaluate(world.model(), world.test, (1,), train=fewer, sampling=FEW)
    cart = lw.collect("CartPole-v1", 60, progress=False)
    known = replace(cart, action=np.zeros_like(cart.action), meta=replace(cart.meta, num_actions=1))
    with pytest.raises(DataError, match="train has 1 discrete actions, the test set 2"):
        evaluate(CopyLast(Statistics.of(cart)), cart, (1,), train=known, sampling=FEW)


def test_a_stop_rule_is_not_said_to_have_stopped_what_has_no_loop(world: Any) -> None:
    data = lw.collect("Hopper-v5", 200, progress=False)
    short = lw.FitConfig(updates=1, batch_size=8, progress=False)
    models = (
        lw.fit(data, lw.MLP(width=8, depth=1), short),
        lw.fit(data, lw.WorldConfig(width=8), short),
    )
    rule = lw.OutputDelta(tol=0.5)
    for model, said in zip(models, ("not applied: the model has no loop", str(rule)), strict=True):
        assert evaluate(model, data, (1,), halt=rule, sampling=FEW).notes["halt"] == said
