"""Each planner reaches optima that are known: LQR, a bounded push, trees small enough to count."""

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

import loopwm as lw
from loopwm.agent.cem import sample
from loopwm.agent.icem import coloured
from loopwm.agent.shooting import Shooting
from tests.agent.known import Corridor, DoubleIntegrator

WIDE = Box(-8.0, 8.0, (1,), np.float32)
KINDS = [
    pytest.param(lw.CEM, {"candidates": 256, "iterations": 10, "elites": 24}, id="CEM"),
    pytest.param(lw.ICEM, {"candidates": 256, "iterations": 10, "elites": 24}, id="ICEM"),
    pytest.param(
        lw.MPPI,
        {"candidates": 256, "iterations": 12, "temperature": 0.25, "std": (0.5, 0.005)},
        id="MPPI",
    ),
    pytest.param(Shooting, {"candidates": 8, "iterations": 120, "lr": 0.03}, id="Shooting"),
]
STARTS = np.array([[1.0, 0.0], [-2.0, 1.0], [0.5, -1.5]])


def regulator(kind: Any, options: dict[str, Any], **more: Any) -> Any:
    """Return a planner whose optimum is LQR's: what is left to pay stands at the horizon's end."""
    p = torch.as_tensor(DoubleIntegrator().solution()[0]).float()
    more = {"discount": 1.0, "value": lambda x: -(x @ p * x).sum(-1), "horizon": 5} | more
    return kind(DoubleIntegrator(), action_space=WIDE, **options, **more)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_first_action_is_that_of_the_linear_quadratic_regulator(kind: Any, options: Any):
    """Within 2% of the cost: what the action loses against the optimum, over the optimum."""
    model, (p, k) = DoubleIntegrator(), DoubleIntegrator().solution()
    action = regulator(kind, options).plan(STARTS)
    (new,), out = model.step(model.start(STARTS), action)
    best = np.einsum("bi,ij,bj->b", STARTS, p, STARTS)
    paid = -out.reward.numpy() + np.einsum("bi,ij,bj->b", new.numpy(), p, new.numpy())
    assert (paid >= best * (1 - 1e-5)).all()
    assert (paid <= 1.02 * best).all()
    np.testing.assert_allclose(action, -(STARTS @ k.T), atol=0.6)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_planned_step_by_step_the_cost_is_near_the_optimum(kind: Any, options: Any):
    """Few iterations, but each plan goes on from the one before: within 5% after 40 steps."""
    fewer = {**options, "iterations": 4}
    if kind is Shooting:
        fewer |= {"iterations": 12, "lr": 0.06}
    model, (p, _) = DoubleIntegrator(), DoubleIntegrator().solution()
    planner, obs, paid = regulator(kind, fewer), STARTS.astype(np.float32), np.zeros(3)
    for _ in range(40):
        (state,), out = model.step(model.start(obs), planner.plan(obs))
        obs, paid = state.numpy(), paid - out.reward.numpy()
    best = np.einsum("bi,ij,bj->b", STARTS, p, STARTS)
    assert (paid <= 1.05 * best).all()


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_bounded_pushes_are_at_their_bounds_where_that_is_best(kind: Any, options: Any):
    """Far away and without cost of effort, the mass is pushed as hard as the bounds allow."""

    def closeness(candidates: torch.Tensor) -> torch.Tensor:
        speed = 0.2 * candidates[..., 0].cumsum(-1)
        return -(100 - 0.2 * speed.cumsum(-1)).square().sum(-1)

    planner = kind(closeness, action_space=WIDE, horizon=5, **options)
    assert planner.plan(np.zeros(1))[0] == pytest.approx(8.0, abs=0.4)


@settings(max_examples=25, deadline=None)
@given(
    rewards=st.lists(st.integers(-5, 5), min_size=3, max_size=6),
    begin=st.integers(0, 2),
    ends=st.none() | st.integers(0, 5),
)
def test_categorical_search_finds_the_best_sequence_of_a_tree(
    rewards: list[int], begin: int, ends: int | None
):
    model = Corridor([float(each) for each in rewards], ends)
    horizon = 4

    def worth(actions: tuple[int, ...]) -> float:
        place, total = begin, 0.0
        for step, action in enumerate(actions):
            place = min(max(place + action - 1, 0), len(rewards) - 1)
            total += 0.9**step * rewards[place]
            if place == ends:
                break
        return total

    every = {a: worth(a) for a in itertools.product(range(3), repeat=horizon)}
    options: Any = {"candidates": 512, "iterations": 2, "horizon": horizon}
    planner = lw.CEM(model, action_space=Discrete(3), discount=0.9, **options)
    first = int(planner.plan(np.array([begin], np.float32)))
    reachable = max(value for actions, value in every.items() if actions[0] == first)
    assert reachable == pytest.approx(max(every.values()), abs=1e-6)


def test_indices_are_drawn_with_their_chances():
    chances = torch.tensor([[[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]]])
    generator = torch.Generator().manual_seed(0)
    drawn = sample(chances, torch.rand(20_000, 2, generator=generator))
    share = torch.bincount(drawn[0, :, 0], minlength=3) / 20_000
    # Four standard errors of a share of one half.
    torch.testing.assert_close(share, chances[0, 0], atol=0.015, rtol=0)
    assert (drawn[0, :, 1] == 2).all()


@pytest.mark.parametrize("steps", [7, 12])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_coloured_noise_has_unit_variance_and_the_spectrum_it_says(steps: int, exponent: float):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    noise = coloured(normal, (40_000, steps, 1), exponent)[..., 0].numpy()
    # The autocovariance, summed cosine by cosine from the spectrum.
    power = [max(k, 1) ** -exponent for k in (min(j, steps - j) for j in range(steps))]
    for lag in range(4):
        wave = [p * np.cos(2 * np.pi * j * lag / steps) for j, p in enumerate(power)]
        found = (noise * np.roll(noise, -lag, axis=1)).mean(axis=0)
        np.testing.assert_allclose(found, sum(wave) / sum(power), atol=0.03)


def test_the_path_integral_is_the_weighted_mean():
    """One iteration, every candidate an elite, nothing clipped: the formula, term by term."""
    seen: list[torch.Tensor] = []

    def score(candidates: torch.Tensor) -> torch.Tensor:
        seen.append(candidates)
        return candidates.sin().sum((2, 3))

    options: Any = {"candidates": 32, "elites": 32, "iterations": 1, "std": (0.05, 0.01)}
    unit = Box(-1.0, 1.0, (2,), np.float32)
    planner = lw.MPPI(score, action_space=unit, horizon=3, temperature=0.7, **options)
    action = planner.plan(np.zeros(1))
    candidates = seen[0][0].double().numpy()
    returns = np.sin(candidates).sum(axis=(1, 2))
    weights = np.exp(returns / (0.7 * returns.std()))
    expected = sum(w * c[0] for w, c in zip(weights, candidates, strict=True)) / weights.sum()
    np.testing.assert_allclose(action, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [lw.CEM, lw.ICEM, lw.MPPI])
def test_the_scale_of_the_reward_does_not_matter(kind: Any):
    actions = [
        kind(lambda c, s=scale: 3 + s * c.sin().sum((2, 3)), action_space=WIDE).plan(np.zeros(1))
        for scale in (1.0, 1000.0)
    ]
    np.testing.assert_allclose(*actions, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [lw.CEM, lw.ICEM, lw.MPPI])
def test_with_few_candidates_the_best_are_still_few(kind: Any):
    aim = kind(
        lambda c: -(c - 4.0).square().sum((2, 3)),
        **{"action_space": WIDE, "candidates": 48, "iterations": 6, "horizon": 1},
    )
    assert aim.elites == (12 if kind is lw.MPPI else 6)
    assert aim.plan(np.zeros(1)) == pytest.approx([4.0], abs=0.8)
    usual = kind(lambda c: c.sum((2, 3)), action_space=WIDE)
    assert usual.elites == (64 if kind is lw.MPPI else 48)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_round_without_a_finite_return_does_not_beat_what_was_found_before(value: float):
    # Returns are lost where the climb leads: what was seen on the way has to do.
    def lost(c: torch.Tensor) -> torch.Tensor:
        return torch.where(c < 0.5, c - 10, value).mean((-2, -1))

    narrow: dict[str, Any] = {"action_space": Box(-1, 1, (1,)), "horizon": 1}
    climbed = Shooting(lost, std=0.05, candidates=4, iterations=10, **narrow).plan(np.zeros(1))
    assert 0.4 < climbed <= 0.5
    steep = Shooting(lambda c: -1e30 * (c - 0.3).square().sum((-2, -1)), **narrow)
    assert steep.plan(np.zeros(1)) == pytest.approx([0.3], abs=0.1)


def test_a_bound_that_float32_rounds_up_is_kept():
    box = Box(-0.1, 0.1, (1,), np.float64)
    action = Shooting(lambda c: c.sum((2, 3)), action_space=box, horizon=3).plan(np.zeros(3))
    assert box.contains(action)


def test_icem_asks_for_fewer_candidates_each_time_and_for_its_mean_at_last():
    seen: list[torch.Tensor] = []

    def score(candidates: torch.Tensor) -> torch.Tensor:
        seen.append(candidates)
        return -candidates.square().sum((2, 3))

    planner = lw.ICEM(score, action_space=WIDE, candidates=100, elites=10, horizon=4)
    planner.plan(np.zeros(1))
    assert [each.shape[1] for each in seen] == [103, 83, 64 + 3 + 1]
    best = seen[1][0][(-seen[1][0].square().sum((1, 2))).topk(3).indices]
    torch.testing.assert_close(seen[2][0, 64:67], best)


def test_where_nothing_was_kept_icem_lets_one_sequence_stand_for_it_row_by_row():
    """The refit's mean and the elites kept are those of the sequences that differ."""

    def score(candidates: torch.Tensor) -> torch.Tensor:
        seen.append(candidates)
        return -(candidates - 0.5).square().sum((2, 3))

    seen: list[torch.Tensor] = []
    space = Box(-1.0, 1.0, (3,), np.float32)
    sizes: dict[str, Any] = {"candidates": 32, "elites": 16, "horizon": 8, "iterations": 2}
    planner: Any = lw.ICEM(score, action_space=space, **sizes)
    planner.plan(np.zeros((2, 1)))
    planner.reset(np.array([True, False]))
    for row, held in ((0, 1), (1, planner.kept)):
        seen.clear()
        twin = copy.deepcopy(planner)
        twin.plan(np.zeros((2, 1)))
        first = torch.cat([seen[0][row, :32], seen[0][row, 32 : 32 + held]])
        best = first[(-(first - 0.5).square().sum((1, 2))).topk(16).indices]
        assert len(best.unique(dim=0)) == 16
        # The second iteration scores its draws, then what was kept of the first, then the mean.
        mean = 0.9 * best.mean(0) + 0.1 * planner._warm[0][row]
        torch.testing.assert_close(seen[1][row, -1], mean)
        torch.testing.assert_close(seen[1][row, -1 - planner.kept : -1], best[: planner.kept])


def test_shooting_takes_the_gradient_through_a_looped_model(hopper: lw.RolloutDataset):
    from loopwm.agent.lookahead import Lookahead, imagined_returns
    from loopwm.study.bench import fresh_model

    model = fresh_model(lw.WorldConfig(width=8), hopper).double()
    state = model.start(torch.as_tensor(hopper.obs[:1]).double())
    generator = torch.Generator().manual_seed(0)
    given = torch.rand(1, 2, 3, 3, generator=generator, dtype=torch.float64) - 0.5
    look = Lookahead(3, halt=lw.Fixed(3))
    leaf = given.clone().requires_grad_()
    (slope,) = torch.autograd.grad(imagined_returns(model, state, leaf, look).sum(), leaf)
    place, eps = (0, 1, 1, 2), 1e-5
    ends = []
    for sign in (1, -1):
        moved = given.clone()
        moved[place] += sign * eps
        ends.append(float(imagined_returns(model, state, moved, look).sum()))
    assert float(slope[place]) == pytest.approx((ends[0] - ends[1]) / (2 * eps), rel=1e-4)
    assert abs(float(slope[place])) > 1e-6
    better = Shooting(model, horizon=3, halt=lw.Fixed(3), lr=0.2)
    obs = hopper.obs[:1]
    assert better.plan(obs).shape == (1, 3)
