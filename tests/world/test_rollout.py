"""Imagination decodes what is asked for, hides what must be hidden, asks the user's functions."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.errors import ConfigError
from loopwm.world.prediction import Trajectory

CARRYING = ["looped", "looped, frames", "looped, own modules", "untied", "GRU"]


def horizon_of(data: Any, rows: int = 4, steps: int = 5) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(rows) * 9
    return data.obs[starts], data.action[starts[:, None] + np.arange(steps)]


def test_decoding_the_last_step_equals_the_last_of_all(given):
    for feedback in given.feedbacks:
        whole = given.model.imagine(given.obs, given.actions, feedback=feedback)
        last = given.model.imagine(given.obs, given.actions, feedback=feedback, decode="last")
        for name in ("obs", "reward", "terminated", "std", "disagreement"):
            ours, theirs = getattr(last, name), getattr(whole, name)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_allclose(ours, theirs[:, -1:], rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(last.n_iters, whole.n_iters)


def test_decoding_rewards_alone_equals_the_rewards_of_all(given):
    for feedback in given.feedbacks:
        whole = given.model.imagine(given.obs, given.actions, feedback=feedback)
        bare = given.model.imagine(given.obs, given.actions, feedback=feedback, decode="reward")
        assert bare.obs is None
        assert bare.std is None
        for name in ("reward", "terminated", "alive", "n_iters"):
            np.testing.assert_allclose(
                getattr(bare, name), getattr(whole, name), rtol=1e-9, atol=1e-9
            )


def calls_of_heads(model: Any, **options: Any) -> Counter:
    calls: Counter = Counter()
    handles = [
        getattr(model.heads, name).register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name in ("change", "reward", "termination")
    ]
    model.imagine(**options)
    for handle in handles:
        handle.remove()
    return calls


def test_survival_is_told_of_every_step_or_not_at_all(make, kinds, data):
    model = make(kinds["looped"], data)
    obs, actions = horizon_of(data)
    every = model.imagine(obs, actions)
    np.testing.assert_allclose(every.alive, np.cumprod(1 - every.terminated, axis=1))
    bare = model.imagine(obs, actions, decode="reward")
    np.testing.assert_allclose(bare.alive, every.alive)
    with pytest.raises(ConfigError, match=r'alive needs .* decode="all" or decode="reward"'):
        _ = model.imagine(obs, actions, decode="last").alive
    once = model.imagine(obs, actions[:, :1], decode="last")
    np.testing.assert_allclose(once.alive, every.alive[:, :1])


def test_what_no_later_step_needs_is_decoded_once_for_all_steps(make, kinds, data):
    model = make(kinds["looped"], data)
    obs, actions = horizon_of(data)
    latent = calls_of_heads(model, obs=obs, actions=actions, feedback="latent")
    assert latent == {"change": 1, "reward": 1, "termination": 1}
    fed = calls_of_heads(model, obs=obs, actions=actions, feedback="observation")
    assert fed == {"change": 5, "reward": 1, "termination": 1}


@pytest.mark.parametrize("kind", CARRYING)
def test_latent_feedback_really_hides_the_observation(make, kinds, data, kind):
    model = make(kinds[kind], data)
    obs, actions = horizon_of(data)
    state, _ = model.step(model.start(obs), actions[:, 0], feedback="latent")
    elsewhere = (state[0] + 3.0, *state[1:])
    for k in range(1, 5):
        state, ours = model.step(state, actions[:, k], feedback="latent")
        elsewhere, theirs = model.step(elsewhere, actions[:, k], feedback="latent")
        np.testing.assert_allclose(ours.reward, theirs.reward, rtol=1e-12)
        # The change is the same, so the two stay as far apart as they were.
        shift = 3.0 * model.stats.obs_std
        np.testing.assert_allclose(theirs.next_obs - ours.next_obs, shift[None].repeat(4, 0))


@pytest.mark.parametrize("kind", CARRYING)
def test_observation_feedback_shows_it(make, kinds, data, kind):
    model = make(kinds[kind], data)
    obs, actions = horizon_of(data)
    state, _ = model.step(model.start(obs), actions[:, 0], feedback="observation")
    _, ours = model.step(state, actions[:, 1])
    _, theirs = model.step((state[0] + 0.5, *state[1:]), actions[:, 1])
    assert np.abs(ours.reward - theirs.reward).min() > 1e-4


def test_the_first_observation_is_seen_under_latent_feedback_too(make, kinds, data):
    model = make(kinds["looped"], data)
    obs, actions = horizon_of(data)
    ours = model.imagine(obs, actions, feedback="latent")
    theirs = model.imagine(obs + data.obs.std(0), actions, feedback="latent")
    assert np.abs(ours.reward - theirs.reward)[:, 0].min() > 1e-4


def test_a_real_observation_is_seen_again_after_steps_in_the_dark(make, kinds, data):
    model = make(kinds["looped"], data)
    obs, actions = horizon_of(data)
    state, _ = model.step(model.start(obs), actions[:, 0], feedback="latent")
    assert not state[1].any()
    state = model.observe(state, actions[:, 1], obs)
    assert state[1].all()


def test_observing_carries_what_stepping_carries(given):
    # The two differ in the observation that the next step sees, and in nothing else.
    for model in getattr(given.model, "members", [given.model]):
        state = model.start(given.obs)
        for k in range(2):
            action, real = given.actions[:, k], given.observed[:, k]
            stepped, _ = model.step(state, action, feedback="observation")
            state = model.observe(state, action, real)
            assert torch.equal(state[0], model.start(real)[0])
            for ours, theirs in zip(state[1:], stepped[1:], strict=True):
                assert torch.equal(ours, theirs)


def test_the_first_step_and_those_that_follow_have_their_own_iterations(make, kinds, data):
    model = make(kinds["looped"], data)
    obs, actions = horizon_of(data)
    seen = model.imagine(obs, actions, halt=lw.Fixed(2, first=5))
    np.testing.assert_array_equal(seen.n_iters, [[5, 2, 2, 2, 2]] * 4)
    state, first = model.step(model.start(obs), actions[:, 0], halt=lw.Fixed(5))
    following = model.imagine(state=state, actions=actions[:, 1:], halt=lw.Fixed(2))
    np.testing.assert_array_equal(seen.obs[:, 0], first.next_obs)
    np.testing.assert_array_equal(seen.obs[:, 1:], following.obs)
    capped = model.imagine(obs, actions, halt=lw.Fixed(2, first=5), max_iters=3)
    np.testing.assert_array_equal(capped.n_iters, [[3, 2, 2, 2, 2]] * 4)


def test_rows_that_begin_among_others_that_go_on_get_their_own_iterations(make, kinds, data):
    model, rule = make(kinds["looped"], data), lw.Fixed(2, first=5)
    obs, actions = horizon_of(data)
    old, _ = model.step(model.start(obs), actions[:, 0])
    begins = torch.tensor([False, True, False, True])
    mixed = tuple(
        torch.where(begins.view(-1, *[1] * (a.ndim - 1)), a, b)
        for a, b in zip(model.start(obs), old, strict=True)
    )
    _, out = model.step(mixed, actions[:, 1], halt=rule)
    assert out.n_iters.tolist() == [2, 5, 2, 5]
    _, fresh = model.step(model.start(obs), actions[:, 1], halt=rule)
    _, later = model.step(old, actions[:, 1], halt=rule)
    expected = np.where(begins[:, None], fresh.next_obs, later.next_obs)
    np.testing.assert_allclose(out.next_obs, expected, rtol=1e-9)


def test_where_the_injection_enters_once_the_first_step_has_its_own_iterations(make, kinds, data):
    model = make(kinds["looped, injected once"], data)
    obs, actions = horizon_of(data)
    seen = model.imagine(obs, actions, halt=lw.Fixed(2, first=5))
    np.testing.assert_array_equal(seen.n_iters, [[5, 2, 2, 2, 2]] * 4)


@pytest.mark.parametrize("kind", ["looped, no carry", "looped, cold"])
def test_a_loop_that_goes_on_from_nothing_always_begins(make, kinds, data, kind):
    obs, actions = horizon_of(data)
    seen = make(kinds[kind], data).imagine(obs, actions, halt=lw.Fixed(2, first=5))
    assert (seen.n_iters == 5).all()


def test_frames_show_the_latest_observations_in_order(make, kinds, data):
    model = make(kinds["MLP, frames"], data)
    state = model.start(data.obs[:1])
    for k in range(1, 5):
        state = model.observe(state, data.action[k - 1 : k], data.obs[k : k + 1])
    shown = torch.cat([state[2][0], state[0]])
    np.testing.assert_allclose(model.normaliser.restore_obs(shown), data.obs[1:5], rtol=1e-5)


def test_a_hidden_observation_neither_reaches_an_encoder_nor_counts_what_it_returns(
    make, kinds, data
):
    model = make(kinds["looped, own modules"], data)
    shown: list[bool] = []
    counted: list[bool] = []
    model.encoder.register_forward_hook(lambda _, x, out: shown.append(bool(x[0].any())))
    # The encoder's 8 numbers come first, then the action and the flag "hidden".
    model.dynamics.enter.register_forward_hook(
        lambda _, x, out: counted.append(bool(x[0][:, :8].any()))
    )
    obs, actions = horizon_of(data)
    model.imagine(obs, actions, feedback="latent")
    assert shown == counted == [True, False, False, False, False]


def test_reward_and_termination_functions_replace_the_heads(make, kinds, data):
    model = make(kinds["looped"], data)
    obs, actions = horizon_of(data)
    learned = model.imagine(obs, actions)

    def reward(obs: Any, action: Any, next_obs: Any) -> Any:
        return obs[..., 0] + 10 * action[..., 1] + 100 * next_obs[..., 2]

    model.use(reward_fn=reward, termination_fn=lambda obs, action, after: after[..., 0] > 5)
    before = np.concatenate([obs[:, None], learned.obs[:, :-1]], axis=1)
    expected = before[..., 0] + 10 * actions[..., 1] + 100 * learned.obs[..., 2]
    ended = (learned.obs[..., 0] > 5).astype(float)
    for feedback in ("observation", "latent"):
        path = model.imagine(obs, actions, feedback=feedback)
        if feedback == "observation":
            np.testing.assert_allclose(path.obs, learned.obs)
            np.testing.assert_allclose(path.reward, expected, rtol=1e-6)
            np.testing.assert_allclose(path.terminated, ended)
        bare = model.imagine(obs, actions, feedback=feedback, decode="reward")
        last = model.imagine(obs, actions, feedback=feedback, decode="last")
        assert bare.obs is None
        np.testing.assert_allclose(bare.reward, path.reward)
        np.testing.assert_allclose(last.reward, path.reward[:, -1:])
        np.testing.assert_allclose(last.terminated, path.terminated[:, -1:])
    one = model.predict(obs, actions[:, 0])
    np.testing.assert_allclose(one.reward, expected[:, 0], rtol=1e-6)
    model.use()
    np.testing.assert_array_equal(model.imagine(obs, actions).reward, learned.reward)


@pytest.mark.parametrize("name", ["reward_fn", "termination_fn"])
@pytest.mark.usefixtures("without_shape_checks")
def test_what_is_not_one_number_for_each_step_is_refused_with_the_shapes(make, kinds, data, name):
    obs, actions = horizon_of(data)
    cases: dict[str, Any] = {
        r"\(4, 5, 1\)": lambda *each: each[2][..., :1],
        "float": lambda *_: 1.0,
    }
    for got, function in cases.items():
        model = make(kinds["looped"], data).use(**{name: function})
        wanted = r"<lambda> must map obs \(4, 5, 3\) to a tensor \(4, 5\), one value for each"
        with pytest.raises(ConfigError, match=f"{wanted} row and step, got {got}$"):
            model.imagine(obs, actions)
        with pytest.raises(ConfigError, match=r"to a tensor \(4, 1\), one value"):
            model.predict(obs, actions[:, 0])


def test_a_function_that_is_not_named_stays_and_none_takes_it_away(make, kinds, data):
    model, (obs, actions) = make(kinds["looped"], data), horizon_of(data)
    learned = model.imagine(obs, actions)
    model.use(reward_fn=lambda obs, action, after: 7 + 0 * obs[..., 0])
    model.use(termination_fn=lambda obs, action, after: obs[..., 0] < np.inf)
    both = model.imagine(obs, actions)
    assert (both.reward == 7).all()
    assert (both.terminated == 1).all()
    one = model.use(reward_fn=None).imagine(obs, actions)
    np.testing.assert_array_equal(one.reward, learned.reward)
    assert (one.terminated == 1).all()
    none = model.use(termination_fn=None).imagine(obs, actions)
    np.testing.assert_array_equal(none.terminated, learned.terminated)


def test_functions_of_the_users_get_indices_where_actions_are_discrete(make, kinds, discrete_data):
    model = make(kinds["looped"], discrete_data)
    obs, actions = horizon_of(discrete_data)
    model.use(reward_fn=lambda obs, action, after: action.to(obs.dtype))
    np.testing.assert_array_equal(model.imagine(obs, actions).reward, actions)


def test_survival_of_a_certain_end_is_zero_from_there_on():
    ended = np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    path = Trajectory(None, None, ended, np.ones((2, 3), int), None, None)
    np.testing.assert_array_equal(path.alive, [[1, 0, 0], [0.5, 0.25, 0.25]])
    path = Trajectory(None, None, torch.as_tensor(ended), torch.ones(2, 3), None, None)
    np.testing.assert_array_equal(path.alive, [[1, 0, 0], [0.5, 0.25, 0.25]])


def test_settled_and_iterations_are_reported_for_every_imagined_step(make, kinds, data):
    model = make(kinds["looped"], data)
    obs, actions = horizon_of(data)
    path = model.imagine(obs, actions, halt=lw.OutputDelta(tol=0.02), max_iters=7)
    assert path.n_iters.shape == path.settled.shape == (4, 5)
    assert path.n_iters.max() <= 7
    assert len(np.unique(path.n_iters)) > 1
    assert path.settled[path.n_iters < 7].all()
