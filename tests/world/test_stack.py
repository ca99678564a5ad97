"""Members stacked into one model compute what each computes alone, whatever is done to them."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import loopwm as lw
from loopwm.core.anderson import Anderson
from loopwm.world.members import OneByOne
from loopwm.world.stack import Stack

LOOPED = ("looped", "looped, no carry", "looped, cold", "looped, renewal", "looped, Gaussian")
UNHALTED = ("looped, frames", "looped, latent", "untied", "untied, no carry", "MLP", "MLP, frames")
RULES = {
    "fixed": {},
    "first": {"halt": lw.Fixed(2, first=5)},
    "settling": {"halt": lw.OutputDelta(0.05)},
    "staged": {"halt": lw.OutputDelta(0.05, stages=(2, 5))},
    "patient": {"halt": lw.Residual(0.05, patience=2), "max_iters": 9},
}


@pytest.fixture(scope="module")
def trio(make, kinds, data) -> Any:
    """Give the maker of three members of a kind, each with a spread of its own."""

    def made(kind: str, chosen: Any = data) -> list[Any]:
        members = [make(kinds[kind], chosen, seed) for seed in range(3)]
        for seed, member in enumerate(members):
            member.heads.spread_scale *= 1 + seed
        return members

    return made


def inputs(data: Any, rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    places = np.arange(rows) * 7
    actions = data.action[places[:, None] + np.arange(4)]
    return torch.as_tensor(data.obs[places]), torch.as_tensor(actions)


def assert_same(ours: Any, theirs: Any) -> None:
    """Compare predictions or trajectories, all members of them, in float64."""
    for field in fields(theirs):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        assert (a is None) == (b is None), field.name
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=field.name)


def pair(members: list[Any]) -> tuple[Stack, OneByOne]:
    stack = Stack.of(members)
    assert stack is not None
    assert stack.ready()
    return stack, OneByOne(members)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [*((kind, rule) for kind in LOOPED for rule in RULES), *((kind, "fixed") for kind in UNHALTED)],
)
def test_every_verb_gives_what_the_members_give_one_by_one(trio, data, kind, rule):
    stack, alone = pair(trio(kind))
    obs, actions = inputs(data)
    options: dict[str, Any] = RULES[rule]
    states = [each.start(obs) for each in (stack, alone)]
    for k in range(2):
        following, predictions = zip(
            *(
                each.step(state, actions[:, k], options)
                for each, state in zip((stack, alone), states, strict=True)
            ),
            strict=True,
        )
        assert_same(*predictions)
        states = [
            each.observe(state, actions[:, k], obs.flip(0), options)
            for each, state in zip((stack, alone), following, strict=True)
        ]
        for ours, theirs in zip(*states, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    assert_same(*(each.predict(obs, actions[:, 0], options) for each in (stack, alone)))
    assert_same(*(each.imagine(obs, None, actions, options) for each in (stack, alone)))
    first, second = (
        each.imagine(None, state, actions, options)
        for each, state in zip((stack, alone), states, strict=True)
    )
    assert_same(first, second)


@pytest.mark.parametrize("kind", ["looped", "MLP, frames"])
def test_members_with_discrete_actions_are_stacked_too(trio, discrete_data, kind):
    stack, alone = pair(trio(kind, discrete_data))
    obs, actions = inputs(discrete_data)
    assert_same(*(each.imagine(obs, None, actions, {}) for each in (stack, alone)))


@pytest.mark.parametrize("decode", ["last", "reward"])
def test_less_can_be_decoded(trio, data, decode):
    stack, alone = pair(trio("looped, Gaussian"))
    obs, actions = inputs(data)
    options = {"feedback": "latent", "decode": decode}
    assert_same(*(each.imagine(obs, None, actions, options) for each in (stack, alone)))


def test_each_row_of_each_member_halts_by_itself(trio, data):
    stack, alone = pair(trio("looped"))
    obs, actions = inputs(data, rows=30)
    options = {"halt": lw.OutputDelta(0.1), "max_iters": 6}
    ours, theirs = (each.predict(obs, actions[:, 0], options) for each in (stack, alone))
    torch.testing.assert_close(ours.n_iters, theirs.n_iters)
    torch.testing.assert_close(ours.settled, theirs.settled)
    # Rows differ, and so do the members at the same row: neither waits for the other.
    assert all(len(counts.unique()) > 1 for counts in theirs.n_iters)
    assert bool((theirs.n_iters[0] != theirs.n_iters[1]).any())
    assert 0 < int(theirs.settled.sum()) < theirs.settled.numel()


def test_no_rows_and_no_leading_axis_go_through(trio, data):
    ensemble = lw.Ensemble(trio("looped, Gaussian"))
    obs, actions = inputs(data)
    for halt in (None, lw.OutputDelta()):
        nothing = ensemble.predict(obs[:0], actions[:0, 0], halt=halt)
        assert nothing.next_obs.shape == (0, 3)
    single = ensemble.imagine(obs[0], actions[0])
    whole = ensemble.imagine(obs, actions)
    torch.testing.assert_close(single.obs, whole.obs[0], rtol=1e-9, atol=1e-10)


class Operations(TorchDispatchMode):
    """Count the operations that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(model: Any, obs: torch.Tensor, actions: torch.Tensor) -> int:
    with Operations() as counter:
        model.imagine(obs, actions)
    return counter.count


def test_small_batches_take_hardly_more_operations_than_one_member_does(make, kinds, data):
    members = [make(kinds["looped"], data, seed) for seed in range(7)]
    ensemble = lw.Ensemble(members)
    obs, actions = inputs(data)
    assert operations(ensemble, obs, actions) < 1.5 * operations(members[0], obs, actions)
    many = obs.repeat(100, 1), actions.repeat(100, 1, 1)
    assert operations(ensemble, *many) > 6.5 * operations(members[0], *many)


def perturb(member: Any) -> None:
    for parameter in member.parameters():
        parameter.data += 0.1


def reload(member: Any) -> None:
    member.load_state_dict({name: 2 * value for name, value in member.state_dict().items()})


def rescale(member: Any) -> None:
    member.heads.spread_scale *= 5


def replace_weight(member: Any) -> None:
    member.heads.change.weight.data = member.heads.change.weight.data * 3


@pytest.mark.parametrize("change", [perturb, reload, rescale, replace_weight])
def test_what_changes_in_a_member_changes_in_the_ensemble(trio, data, change):
    members = trio("looped, Gaussian")
    ensemble = lw.Ensemble(members)
    obs, actions = inputs(data)
    before = ensemble.imagine(obs, actions)
    if change is reload:
        # The statistics are the members' own: with others in one of them, they differ for good.
        for member in members[1:]:
            change(member)
    change(members[0])
    after = ensemble.imagine(obs, actions)
    mean = torch.stack([member.imagine(obs, actions).obs for member in members]).mean(0)
    torch.testing.assert_close(after.obs, mean, rtol=1e-9, atol=1e-9)
    assert not torch.equal(after.std, before.std)


def test_members_may_move_to_another_type(trio, data):
    ensemble = lw.Ensemble(trio("looped"))
    obs, actions = inputs(data)
    exact = ensemble.imagine(obs, actions).obs
    ensemble.float()
    torch.testing.assert_close(ensemble.imagine(obs, actions).obs, exact, rtol=1e-4, atol=1e-4)
    assert ensemble.step(ensemble.start(obs), actions[:, 0])[0][0].dtype == torch.float32


def test_settings_apart_from_the_weights_are_followed(trio, data):
    members = trio("looped")
    ensemble = lw.Ensemble(members)
    obs, actions = inputs(data)
    held = ensemble.imagine(1.5 * obs, 3 * actions).obs
    for member in members:
        member.margin = None
        member.use(reward_fn=lambda obs, action, next_obs: next_obs[..., 0])
    free = ensemble.imagine(1.5 * obs, 3 * actions)
    assert not torch.equal(free.obs, held)
    each = [member.imagine(1.5 * obs, 3 * actions) for member in members]
    torch.testing.assert_close(free.reward, torch.stack([e.reward for e in each]).mean(0))
    torch.testing.assert_close(free.obs, torch.stack([e.obs for e in each]).mean(0))


def test_members_with_a_solver_use_it(trio, data):
    members = trio("looped")
    ensemble = lw.Ensemble(members)
    obs, actions = inputs(data)
    plain = ensemble.imagine(obs, actions).obs
    for member in members:
        member.core.solver = Anderson()
    with torch.no_grad():
        each = [member.imagine(obs, actions).obs for member in members]
        solved = ensemble.imagine(obs, actions).obs
    torch.testing.assert_close(solved, torch.stack(each).mean(0))
    assert not torch.allclose(solved, plain)


def test_gradients_reach_actions_and_members(trio, data):
    members = trio("looped")
    ensemble = lw.Ensemble(members)
    obs, actions = inputs(data)
    actions.requires_grad_()
    gradients = []
    for model in (ensemble, OneByOne(members)):
        if isinstance(model, OneByOne):
            total = model.imagine(obs, None, actions, {}).reward.mean(0).sum()
        else:
            total = model.imagine(obs, actions).reward.sum()
        gradients.append(torch.autograd.grad(total, actions)[0])
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
    ensemble.requires_grad_(True)
    ensemble.imagine(obs, actions.detach()).reward.sum().backward()
    assert all(float(m.dynamics.enter.weight.grad.norm()) > 0 for m in members)


@pytest.mark.parametrize("kind", ["GRU", "looped, contractive", "looped, own modules"])
def test_other_kinds_take_turns(trio, data, kind):
    members = trio(kind)
    assert Stack.of(members) is None
    obs, actions = inputs(data)
    mean = torch.stack([member.imagine(obs, actions).obs for member in members]).mean(0)
    torch.testing.assert_close(lw.Ensemble(members).imagine(obs, actions).obs, mean)


def test_members_that_are_one_or_know_other_statistics_take_turns(make, kinds, data):
    member = make(kinds["looped"], data)
    assert Stack.of([member, member]) is None
    other = make(kinds["looped"], replace(data, obs=2 * data.obs, next_obs=2 * data.next_obs))
    assert Stack.of([member, other]) is None


@pytest.mark.parametrize("rule", [lw.Fixed(2, first=5), lw.Fixed(5, first=2)], ids=str)
def test_rows_that_begin_and_rows_that_go_on_do_not_change_each_other(trio, data, rule):
    ensemble = lw.Ensemble(trio("looped, Gaussian"))
    obs, actions = inputs(data, rows=4)
    begun, old = ensemble.start(obs[:2]), ensemble.start(obs[2:])
    gone_on, _ = ensemble.step(old, actions[2:, 0])
    both = tuple(torch.cat(parts) for parts in zip(begun, gone_on, strict=True))
    following, together = ensemble.step(both, actions[:, 1], halt=rule)
    first, one = ensemble.step(begun, actions[:2, 1], halt=rule)
    second, two = ensemble.step(gone_on, actions[2:, 1], halt=rule)
    assert together.n_iters.tolist() == [rule.first] * 2 + [rule.iterations] * 2
    for name in ("next_obs", "reward", "std", "residual", "disagreement", "n_iters"):
        apart = torch.cat([getattr(one, name), getattr(two, name)])
        torch.testing.assert_close(getattr(together, name), apart, rtol=1e-9, atol=1e-10, msg=name)
    for ours, *theirs in zip(following, first, second, strict=True):
        torch.testing.assert_close(ours, torch.cat(theirs), rtol=1e-9, atol=1e-10)
