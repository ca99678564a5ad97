"""What all planners share: arrays, warm starts, independent rows, value, policy, mistakes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import loopwm as lw
from loopwm.agent.lookahead import Lookahead, Quantile, discounted, imagined_returns, widened
from loopwm.agent.planner import Planner, SequencePlanner, shifted
from loopwm.agent.shooting import Shooting
from loopwm.core.halt import StopRule
from loopwm.data.normalise import Statistics
from loopwm.errors import ConfigError, DataError, EnvironmentUnsupported
from loopwm.world.build import build
from tests.agent.known import CartPole, Corridor, DoubleIntegrator, Point

BOX = Box(-2.0, 4.0, (1,), np.float32)
PLANE = Box(-1.0, 1.0, (2,), np.float32)
CONTINUOUS = [lw.CEM, lw.ICEM, lw.MPPI, Shooting]
KINDS = pytest.mark.parametrize("kind", CONTINUOUS, ids=lambda kind: kind.__name__)


def small(kind: Any, model: Any, **options: Any) -> SequencePlanner:
    sizes: dict[str, Any] = {"candidates": 24, "iterations": 2}
    sizes |= {} if kind is Shooting else {"elites": 6}
    return kind(model, **(sizes | {"action_space": BOX, "horizon": 4} | options))


def random_model(data: lw.RolloutDataset, config: Any = None, members: int = 1) -> Any:
    config = config or lw.WorldConfig(width=8)
    models = [build(config, data.meta, Statistics.of(data), seed) for seed in range(members)]
    models = [each.eval().requires_grad_(False) for each in models]
    return models[0] if members == 1 else lw.Ensemble(models)


@KINDS
def test_arrays_go_out_as_they_came_in_and_inside_the_bounds(kind: Any):
    planner = small(kind, DoubleIntegrator(), horizon=3)
    assert isinstance(planner, Planner)
    obs = np.array([[50.0, 0.0], [-50.0, 0.0]])
    one, many = planner.plan(obs[0]), planner.plan(obs)
    assert isinstance(one, np.ndarray)
    assert one in BOX
    assert many.shape == (2, 1)
    assert many.dtype == np.float32
    assert (many >= BOX.low).all() and (many <= BOX.high).all()  # noqa: PT018
    tensor = planner.plan(torch.as_tensor(obs))
    assert tensor.dtype == torch.float64
    assert planner.plan(torch.as_tensor(obs, dtype=torch.float32)).dtype == torch.float32
    assert planner.plan(obs.reshape(2, 1, 2)).shape == (2, 1, 1)


def test_discrete_actions_are_indices_without_an_axis():
    planner = lw.CEM(CartPole(), action_space=Discrete(2), candidates=32, elites=8)
    one = planner.plan(np.zeros(4))
    assert one in Discrete(2)
    assert one.dtype == np.int64
    many = planner.plan(torch.zeros(5, 4))
    assert many.shape == (5,)
    assert many.dtype == torch.int64


@KINDS
def test_a_row_is_planned_as_it_would_be_alone(kind: Any):
    obs = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    together = small(kind, DoubleIntegrator(), seed=3)
    alone = [small(kind, DoubleIntegrator(), seed=3) for _ in obs]
    for _ in range(2):
        batch = together.plan(obs)
        singles = [planner.plan(row) for planner, row in zip(alone, obs, strict=True)]
        np.testing.assert_allclose(batch, np.stack(singles), rtol=1e-5, atol=1e-5)


@KINDS
def test_seeds_decide(kind: Any):
    obs = np.ones(2, np.float32)
    first, again, other = (small(kind, DoubleIntegrator(), seed=s).plan(obs) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@KINDS
def test_the_global_random_state_is_neither_read_nor_changed(kind: Any):
    before = torch.random.get_rng_state()
    small(kind, DoubleIntegrator()).plan(np.ones(2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_plan_moves_on_by_a_step():
    plan = torch.arange(6.0).view(1, 3, 2)
    assert shifted(plan).tolist() == [[[2, 3], [4, 5], [0, 0]]]
    assert plan[0, 0, 1] == 1


@KINDS
def test_the_next_search_begins_where_this_one_ended(kind: Any):
    """With hardly any noise, the second action is the second step of the first plan."""
    options = {"std": (1e-6, 1e-6)} if kind is lw.MPPI else {"std": 1e-6}
    planner = small(kind, lambda c: -c.square().sum((2, 3)), **options)
    plan = torch.tensor([[[0.1], [0.2], [0.3], [0.4]]])
    obs = np.zeros((1, 2), np.float32)
    fresh = planner.fresh(1, plan)
    kept = () if len(fresh) == 1 else (plan[:, None].expand_as(fresh[1]),)
    planner._warm = (plan, *kept)
    if kind is Shooting:
        planner.lr = 1e-9  # pyright: ignore[reportAttributeAccessIssue]
    actions = [planner.plan(obs)[0, 0] for _ in range(4)]
    np.testing.assert_allclose(actions, 1 + 3 * np.array([0.1, 0.2, 0.3, 0.4]), atol=1e-3)
    planner.reset()
    np.testing.assert_allclose(planner.plan(obs), [[1.0]], atol=1e-3)


@KINDS
def test_only_the_masked_rows_forget(kind: Any):
    planner = small(kind, DoubleIntegrator())
    obs = np.array([[3, 0], [-3, 1], [2, 2]], np.float32)
    planner.plan(obs)
    warm = [each.clone() for each in planner._warm or ()]
    planner.reset(np.array([False, True, False]))
    fresh = planner.fresh(3, warm[0])
    for old, new, begun in zip(warm, planner._warm or (), fresh, strict=True):
        assert torch.equal(new[[0, 2]], old[[0, 2]])
        assert torch.equal(new[1], begun[1])
        assert not torch.equal(new[1], old[1])


def test_another_number_of_rows_begins_anew():
    first, second = (small(lw.CEM, DoubleIntegrator()) for _ in range(2))
    first.plan(np.ones((4, 2)))
    second.plan(np.ones((2, 2)))
    for planner in (first, second):
        assert planner.plan(np.ones((3, 2))).shape == (3, 1)
        assert planner._warm is not None
    assert torch.equal(first._warm[0], second._warm[0])  # pyright: ignore[reportOptionalSubscript]


def test_returns_are_weighed_by_survival():
    rng = np.random.default_rng(0)
    reward, ending, value = rng.normal(size=(5, 7)), rng.random((5, 7)), rng.normal(size=5)
    expected = []
    for row in range(5):
        total, alive = 0.0, 1.0
        for k in range(7):
            total += 0.9**k * alive * reward[row, k]
            alive *= 1 - ending[row, k]
        expected.append(total + 0.9**7 * alive * value[row])
    rewards, endings, values = (torch.as_tensor(each) for each in (reward, ending, value))
    found = discounted(rewards, endings, values, 0.9)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(
    "config", [lw.WorldConfig(width=8), lw.MLP(width=8, depth=1)], ids=("looped", "mlp")
)
def test_all_steps_at_once_are_worth_what_single_steps_are(
    hopper: lw.RolloutDataset, config: Any, members: int
):
    model = random_model(hopper, config, members)
    each = [model] if members == 1 else model.members
    for one in each:
        one.use(reward_fn=lambda obs, action, next_obs: next_obs[..., 0] + action[..., 0] ** 2)
    obs = torch.as_tensor(hopper.obs[:3])
    candidates = torch.rand(3, 5, 4, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    state, value = model.start(obs), lambda seen: seen.square().sum(-1)
    for look in (Lookahead(4, 0.9), Lookahead(4, 0.9, value, halt=lw.Fixed(2))):
        found = imagined_returns(model, state, candidates, look)
        for row in range(3):
            for n in range(5):
                own, total, alive = tuple(s[row : row + 1] for s in state), 0.0, 1.0
                last = obs[:0]
                for k in range(4):
                    options = {} if look.halt is None else {"halt": look.halt}
                    own, out = model.step(own, candidates[row, n, k][None], **options)
                    total += 0.9**k * alive * float(out.reward)
                    alive *= 1 - float(out.terminated)
                    last = out.next_obs
                if look.value is not None:
                    total += 0.9**4 * alive * float(value(last))
                assert float(found[row, n]) == pytest.approx(total, rel=1e-3, abs=1e-4)


def test_scores_do_not_depend_on_neighbours(hopper: lw.RolloutDataset):
    model = random_model(hopper)
    state = model.start(torch.as_tensor(hopper.obs[:4]))
    candidates = torch.rand(4, 6, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    look = Lookahead(3, halt=lw.OutputDelta(0.05))
    whole = imagined_returns(model, state, candidates, look)
    for row in range(4):
        own = tuple(s[row : row + 1] for s in state)
        part = imagined_returns(model, own, candidates[row : row + 1], look)
        torch.testing.assert_close(part[0], whole[row], rtol=1e-4, atol=1e-4)


def test_a_state_is_started_once_for_all_its_candidates(hopper: lw.RolloutDataset, monkeypatch):
    model = random_model(hopper)
    seen = []
    start = model.start
    monkeypatch.setattr(model, "start", lambda obs: seen.append(len(obs)) or start(obs))
    planner = lw.CEM(model, candidates=16, elites=4, horizon=2)
    planner.plan(hopper.obs[:3])
    assert seen == [3]


def test_a_state_alone_is_enough(hopper: lw.RolloutDataset):
    model = random_model(hopper)
    state = model.start(torch.as_tensor(hopper.obs[:2]))
    state = model.observe(state, hopper.action[:2], hopper.next_obs[:2])
    planner = lw.CEM(model, candidates=16, elites=4, horizon=2)
    from_state = planner.plan(state=state)
    assert isinstance(from_state, torch.Tensor)
    planner = lw.CEM(model, candidates=16, elites=4, horizon=2)
    both = planner.plan(hopper.next_obs[:2], state=state)
    np.testing.assert_array_equal(both, from_state.numpy())
    assert not np.array_equal(both, lw.CEM(model, candidates=16, elites=4, horizon=2).plan(
        hopper.next_obs[:2]))  # fmt: skip


def test_the_model_may_be_replaced(hopper: lw.RolloutDataset):
    planner = lw.MPPI(random_model(hopper), candidates=16, elites=4, horizon=2)
    before = planner.plan(hopper.obs[0])
    other = random_model(hopper, lw.MLP(width=8, depth=1))
    planner.reset()
    planner.model = other
    after = planner.plan(hopper.obs[0])
    assert after in planner.units.space
    assert not np.array_equal(before, after)


def test_actions_that_the_model_was_not_trained_on_are_refused(hopper: lw.RolloutDataset):
    model = random_model(hopper)
    for space in (Box(-1, 1, (2,)), Discrete(3), Box(-1, 1, (1, 3))):
        with pytest.raises(ConfigError, match=r"the model was trained on Box\(-1\.0, 1\.0, \(3,\)"):
            lw.CEM(model, action_space=space)
    wider = lw.CEM(model, action_space=Box(-2, 2, (3,)), candidates=4, elites=2, horizon=1)
    assert wider.plan(hopper.obs[0]).shape == (3,)


@KINDS
def test_a_policy_that_knows_better_is_followed(kind: Any):
    """A needle: nothing is gained but by one action in each step, which only the policy knows."""

    class Needle(DoubleIntegrator):
        def step(self, state: Any, action: Any) -> Any:
            new, out = super().step(state, action)
            near = 1 - ((torch.as_tensor(action)[:, 0] - 3.125).abs() / 1e-3).clamp(max=1)
            return new, replace(out, reward=near)

    asked = []

    def policy(obs: torch.Tensor) -> torch.Tensor:
        asked.append(obs.shape)
        return torch.full((len(obs), 1), 3.125)

    options: dict[str, Any] = {} if kind is Shooting else {"iterations": 5, "elites": 2}
    options |= {"momentum": 0.0} if kind in (lw.CEM, lw.ICEM) else {}
    options |= {"temperature": 0.01} if kind is lw.MPPI else {}
    helped = small(kind, Needle(), policy=policy, proposals=2, **options)
    assert helped.plan(np.zeros((3, 2)))[:, 0] == pytest.approx([3.125] * 3, abs=1e-3)
    assert asked == [(6, 2)] * 4
    lonely = small(kind, Needle(), **options)
    assert abs(lonely.plan(np.zeros((1, 2)))[0, 0] - 3.125) > 1e-3


def test_a_function_may_ask_for_the_observations():
    target = np.array([[-1.5], [0.5], [3.5]], np.float32)

    def near(candidates: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        return -(candidates - obs[:, None, None]).square().sum((2, 3))

    planner = lw.CEM(near, action_space=BOX, horizon=2, iterations=12)
    np.testing.assert_allclose(planner.plan(target), target, atol=0.02)


@KINDS
def test_candidates_without_a_finite_return_are_not_chosen(kind: Any):
    def walled(candidates: torch.Tensor) -> torch.Tensor:
        returns = candidates.mean((2, 3))
        return returns.where(returns < 2, torch.nan)

    planner = small(kind, walled, horizon=1, iterations=10, candidates=64)
    assert 1.0 < float(planner.plan(np.zeros(1))[0]) <= 4.0
    nothing = small(kind, lambda c: c.sum((2, 3)) * torch.nan)
    assert nothing.plan(np.zeros(1)) in BOX


def test_a_quantile_of_the_counts_sets_the_depth(hopper: lw.RolloutDataset):
    model = random_model(hopper, lw.WorldConfig(width=8))
    given: list[Any] = []
    whole = model.imagine

    def spy(*args: Any, **options: Any) -> Any:
        given.append(options["halt"])
        return whole(*args, **options)

    model.imagine = spy
    rule = lw.OutputDelta(0.01)
    planner = lw.CEM(model, candidates=16, elites=4, horizon=3, halt=Quantile(rule, 0.5, 8))
    planner.plan(hopper.obs[:2])
    first, *later = given
    assert first == rule
    assert len(set(later)) == 1
    middle = later[0].iterations
    # The same counts, one by one.
    counts = []
    uniform = torch.empty(8, 3, 3).uniform_(generator=_planner_generator())
    state = widened(model.start(hopper.obs[:2]), 8)
    actions = (2 * uniform - 1).expand(2, 8, 3, 3).reshape(16, 3, 3)
    for k in range(3):
        state, out = model.step(state, actions[:, k], halt=rule)
        counts += out.n_iters.tolist()
    assert middle == sorted(counts)[int(np.ceil(0.5 * (len(counts) - 1)))]


def _planner_generator() -> torch.Generator:
    from loopwm.seed import torch_rng

    return torch_rng(0, "planner")


def test_the_users_reward_and_termination_rule(hopper: lw.RolloutDataset):
    model = random_model(hopper).use(
        reward_fn=lambda obs, action, next_obs: -(action - 0.25).square().sum(-1),
        termination_fn=lambda obs, action, next_obs: action[..., 0] > 0.9,
    )
    planner = lw.CEM(model, horizon=3, iterations=8)
    np.testing.assert_allclose(planner.plan(hopper.obs[0]), [0.25] * 3, atol=0.02)


@pytest.mark.usefixtures("without_shape_checks")
def test_mistakes_are_named():
    model = DoubleIntegrator()
    cases: list[tuple[str, Any]] = [
        ("candidates must be at least 2", {"candidates": 1}),
        ("iterations must be at least 1", {"iterations": 0}),
        (r"elites must lie in 1\.\.candidates=24, got 25", {"elites": 25}),
        ("horizon must be at least 1", {"horizon": 0}),
        (r"discount must lie in \(0, 1\]", {"discount": 1.5}),
        ("proposals must be at least 1", {"proposals": 0}),
        ("halt must be", {"halt": 4}),
        ("seed must not be negative", {"seed": -1}),
        ("pass action_space=", {"action_space": None}),
        ("std must be above 0", {"std": 0.0}),
        ("momentum must lie in", {"momentum": 1.0}),
    ]
    for message, options in cases:
        with pytest.raises(ConfigError, match=message):
            small(lw.CEM, model, **options)
    for wrong in ("runs/pole", None):
        with pytest.raises(ConfigError, match=r"model must have the verbs.*lw\.load\(path\)"):
            lw.CEM(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="horizn"):
        lw.CEM(model, action_space=BOX, horizn=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        small(lw.MPPI, model, temperature=0.0)
    with pytest.raises(ConfigError, match="colour must be at least 0"):
        small(lw.ICEM, model, colour=-1.0)
    with pytest.raises(ConfigError, match="lr must be above 0"):
        small(Shooting, model, lr=0.0)
    with pytest.raises(ConfigError, match="one depth for all"):
        small(Shooting, model, halt=lw.OutputDelta())
    for kind in (lw.ICEM, lw.MPPI, Shooting):
        with pytest.raises(ConfigError, match="searches continuous actions"):
            small(kind, model, action_space=Discrete(2))
    unbounded = Box(-np.inf, np.inf, (1,), np.float32)
    with pytest.raises(EnvironmentUnsupported, match="bounds are needed"):
        small(lw.CEM, model, action_space=unbounded)
    with pytest.raises(EnvironmentUnsupported, match="must begin at 0"):
        small(lw.CEM, model, action_space=Discrete(3, start=1))
    with pytest.raises(ConfigError, match=r"Quantile\.share"):
        Quantile(share=0.0)
    with pytest.raises(ConfigError, match=r"Quantile\.probes"):
        Quantile(probes=0)
    assert isinstance(Quantile().rule, StopRule)


@pytest.mark.usefixtures("without_shape_checks")
def test_mistakes_in_calls_are_named():
    planner = small(lw.CEM, DoubleIntegrator())
    with pytest.raises(ConfigError, match="plan needs obs"):
        planner.plan()
    with pytest.raises(DataError, match="NaN"):
        planner.plan(np.array([np.nan, 0.0]))
    with pytest.raises(DataError, match="single number"):
        planner.plan(1.0)
    with pytest.raises(DataError, match="obs has 1 rows but the state has 2"):
        planner.plan(np.zeros(2), state=(torch.zeros(2, 2),))
    planner.plan(np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="mask must hold 2 booleans"):
        planner.reset(np.array([True]))
    with pytest.raises(ConfigError, match="mask must hold 2 booleans"):
        planner.reset(np.array([0, 1]))
    with pytest.raises(ConfigError, match="one number for each candidate"):
        small(lw.CEM, lambda c: c.sum((1, 2, 3))).plan(np.zeros(1))
    with pytest.raises(ConfigError, match="verbs start, observe and step"):
        small(lw.CEM, 3)
    with pytest.raises(ConfigError, match=r"\(candidates\) or \(candidates, obs\)"):
        small(lw.CEM, lambda a, b, c: a)
    with pytest.raises(ConfigError, match="need a model"):
        small(lw.CEM, lambda c: c.sum((2, 3)), value=lambda obs: obs[:, 0])
    with pytest.raises(ConfigError, match="asked at obs"):
        small(lw.CEM, lambda c: c.sum((2, 3))).plan(state=(torch.zeros(1, 2),))
    with pytest.raises(ConfigError, match="no policy="):
        small(lw.CEM, DoubleIntegrator(), policy=lambda obs: obs).plan(state=(torch.zeros(1, 2),))
    with pytest.raises(ConfigError, match="value must return one number"):
        small(lw.CEM, DoubleIntegrator(), value=lambda obs: obs).plan(np.zeros(2))
    with pytest.raises(ConfigError, match="torch can differentiate"):
        small(Shooting, lambda c: c.detach().sum((2, 3))).plan(np.zeros(1))


def test_models_that_answer_in_numpy_are_planned_in():
    planner = small(lw.CEM, Point(), action_space=PLANE, candidates=256, elites=16, iterations=6)
    action = planner.plan(np.array([[2.0, -2.0]], np.float32))
    np.testing.assert_allclose(action, [[-1, 1]], atol=0.1)


def test_what_ends_the_episode_early_is_avoided():
    lasting = Corridor([1.0, 0.0, 0.0, 5.0, 0.0], ends=3)
    short, long = (
        lw.CEM(lasting, action_space=Discrete(3), horizon=horizon).plan(np.array([1], np.float32))
        for horizon in (3, 10)
    )
    # Two steps right give 5 and end it; staying left gives 1 in each step that is left.
    assert (short, long) == (2, 0)
