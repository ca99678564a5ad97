"""Every kind of model computes what its equations say, row by row in numpy."""

from typing import Any

import numpy as np
import pytest

import loopwm as lw
from loopwm.errors import ConfigError

PLAIN = [
    *("looped", "looped, no carry", "looped, cold", "looped, frames", "looped, Gaussian"),
    *("looped once", "looped, post-norm", "untied, post-norm"),
    *("untied", "untied, no carry", "MLP", "MLP, frames", "GRU", "GRU, Gaussian"),
    *("looped, injected once", "RSSM", "RSSM, classes"),
]


def iterations_of(model: Any) -> int:
    """What the oracle repeats: iterations, blocks or layers."""
    config = model.config
    if isinstance(config, lw.WorldConfig):
        return config.depth.typical
    if isinstance(config, lw.Untied):
        return config.blocks
    return config.depth if isinstance(config, lw.MLP) else 1


def agree(ours: Any, row: int, theirs: dict[str, Any]) -> None:
    for name, value in theirs.items():
        # The normaliser's statistics are float32.
        np.testing.assert_allclose(
            getattr(ours, name)[row], value, rtol=2e-5, atol=2e-6, err_msg=name
        )


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("world", ["data", "discrete_data", "turning_data"])
def test_observed_and_imagined_steps_equal_the_equations(
    plain_world, make, kinds, request, kind, world
):
    chosen = request.getfixturevalue(world)
    model = make(kinds[kind], chosen)
    obs, actions = chosen.obs[:40:10], chosen.action[np.arange(0, 40, 10)[:, None] + np.arange(6)]
    real = chosen.obs[np.arange(0, 40, 10)[:, None] + 1 + np.arange(2)]
    for feedback in ["observation", "latent"] if model.dynamics.carries else ["observation"]:
        state = model.start(obs)
        rows = [plain_world.Row(model, iterations_of(model)) for _ in obs]
        for row, first in zip(rows, obs, strict=True):
            row.start(first)
        for k in range(2):
            state = model.observe(state, actions[:, k], real[:, k])
            for i, row in enumerate(rows):
                row.observe(actions[i, k], real[i, k])
        for k in range(2, 6):
            state, out = model.step(state, actions[:, k], feedback=feedback)
            for i, row in enumerate(rows):
                agree(out, i, row.step(actions[i, k], feedback))


def test_inputs_beyond_the_clip_are_clipped_and_targets_are_not(plain_world, make, kinds, data):
    model = make(kinds["looped"], data)
    far = data.obs[:3] + 40 * data.obs.std(0)
    out = model.predict(far, data.action[:3])
    for i in range(3):
        row = plain_world.Row(model, 8)
        row.start(far[i])
        agree(out, i, row.step(data.action[i]))
    twice = model.predict(data.obs[:3] + 80 * data.obs.std(0), data.action[:3])
    np.testing.assert_allclose(twice.reward, out.reward, rtol=1e-9)


def test_max_iters_and_fixed_choose_the_number_of_iterations(plain_world, make, kinds, data):
    model, obs, action = make(kinds["looped"], data), data.obs[:2], data.action[:2]
    for options, count in [
        ({}, 8),
        ({"halt": lw.Fixed(3)}, 3),
        ({"max_iters": 5}, 5),
        ({"halt": lw.Fixed(20), "max_iters": 6}, 6),
        ({"halt": lw.OutputDelta(tol=1e-12)}, 16),
        ({"halt": lw.OutputDelta(tol=1e-12), "max_iters": 11}, 11),
    ]:
        out = model.predict(obs, action, **options)
        assert out.n_iters.tolist() == [count, count]
        row = plain_world.Row(model, count)
        row.start(obs[1])
        agree(out, 1, row.step(action[1]))


def test_output_delta_stops_when_the_decoded_change_stands_still(make, kinds, data):
    model, rows, tol = make(kinds["looped"], data), 40, 0.01
    obs, action = data.obs[:rows], data.action[:rows]
    out = model.predict(obs, action, halt=lw.OutputDelta(tol=tol), max_iters=30)
    decoded = [
        model.predict(obs, action, halt=lw.Fixed(k)).next_obs / model.stats.change_std
        for k in range(1, 31)
    ]
    for row in range(rows):
        moves = [
            np.sqrt(np.mean((decoded[k][row] - decoded[k - 1][row]) ** 2)) for k in range(1, 30)
        ]
        count = int(out.n_iters[row])
        # Before the first iteration the learned start is decoded, so a row may stop after one.
        assert count == 30 or count == 1 or moves[count - 2] < tol
        assert all(move >= tol for move in moves[: max(0, count - 2)])
        assert bool(out.settled[row]) == (count < 30 or moves[28] < tol)
    assert len(set(out.n_iters.tolist())) > 2


def test_without_a_rule_settled_is_a_small_last_change(make, kinds, data):
    model, obs, action = make(kinds["looped"], data), data.obs[:40], data.action[:40]
    for tol in (0.003, 0.05, 0.3):
        out = model.predict(obs, action, halt=lw.Fixed(6, tol=tol))
        assert (out.settled == (out.residual < tol)).all()


def test_core_refine_is_the_loop_that_inference_runs(make, kinds, data):
    model = make(kinds["looped, no carry"], data)
    state, run = model.start(data.obs[:4]), model.plan(lw.Fixed(5))
    action = model.normaliser.action(model.start(data.obs[:4])[0].new_tensor(data.action[:4]))
    out = model.advance(state, action, run)
    x = np.concatenate([state[0].clamp(-5, 5), action, np.zeros((4, 1))], axis=1)
    e = model.dynamics.injection((), state[0].new_tensor(x))
    h = model.dynamics.origin.expand(4, 1, 8)
    for _ in range(5):
        h = model.core.refine(h, e)
    np.testing.assert_allclose(h[:, 0], out.feature, rtol=1e-12)


def test_one_iteration_is_the_cell_without_a_loop(make, kinds, data):
    once = make(kinds["looped once"], data)
    looped = make(kinds["looped"], data)
    looped.load_state_dict(once.state_dict())
    a = once.predict(data.obs[:4], data.action[:4])
    b = looped.predict(data.obs[:4], data.action[:4], halt=lw.Fixed(1))
    np.testing.assert_array_equal(a.next_obs, b.next_obs)
    assert a.n_iters.tolist() == [1] * 4


def test_parameters_are_counted_by_closed_form(make, kinds, data):
    d, inputs, obs = 8, 3 + 2 + 1, 3
    cell = d + 2 * d * d + (2 * d * d + 2 * d) + d * d + d * d
    looped = inputs * d + d + d * d + d + cell
    # The change, the reward; termination, which is read off the next observation.
    heads = (d * obs + obs) + ((d * 32 + 32) + 33) + ((obs * 32 + 32) + (32 * 32 + 32) + 33)
    model = make(kinds["looped"], data)
    assert (model.core_parameters, model.num_parameters) == (looped, looped + heads)
    mlp = make(kinds["MLP"], data)
    assert mlp.core_parameters == inputs * d + d + d * d + d
    gru = make(kinds["GRU"], data)
    assert gru.core_parameters == inputs * d + d + 2 * (3 * d * d + 3 * d) + d * d + d
    z, both = 4, (d + 3) * d + d
    entering = (z + 2) * d + d + 2 * (3 * d * d + 3 * d)
    stating = d * d + d + both + 2 * (d * 2 * z + 2 * z)
    rssm = make(kinds["RSSM"], data)
    assert rssm.core_parameters == entering + stating + (d + z) * d + d
    once = make(kinds["looped, injected once"], data)
    assert once.core_parameters == looped
    untied = make(kinds["untied"], data)
    assert untied.core_parameters == inputs * d + d + d * d + d + 3 * cell


def test_a_baseline_has_no_core_and_says_so(make, kinds, data):
    with pytest.raises(ConfigError, match="a MLP model has no looped core"):
        _ = make(kinds["MLP"], data).core
