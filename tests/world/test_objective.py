"""The training loss equals a plain sum over rows and steps, and so does its gradient."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import loopwm as lw
from loopwm.batch import SequenceBatch
from loopwm.data.replay import Windows
from loopwm.world.objective import calibrate_spread, sequence_loss, validation_error

STEPS = 4
# Without what has no closed form: the limit on single rows (test_backflow.py).
WEIGHTS = lw.Objective(reward=0.7, termination=0.3, intermediate=0.4, row_clip=0.0)


def windows(data: Any) -> SequenceBatch:
    """Float64 windows: whole ones, padded ones, one of a single step, a terminal one."""
    batch = Windows(data, STEPS).at(torch.tensor([0, 26, 27, 28, 29, 59, 100]))
    assert batch.valid.sum(1).tolist() == [4, 4, 3, 2, 1, 1, 4]
    assert batch.terminated.any()
    action = batch.action if data.discrete else batch.action.double()
    can_end = batch.terminated | (torch.arange(7) % 3 > 0)[:, None]
    doubles = {"obs": batch.obs.double(), "action": action, "reward": batch.reward.double()}
    return replace(batch, **doubles, can_end=can_end)


def draws(model: Any, rows: int, seed: int) -> tuple[list[int], list[int] | None, np.ndarray]:
    """Repeat what the loss draws: depths in descending order, taps, then a mask per step."""
    generator, config = torch.Generator().manual_seed(seed), model.config
    taps, depths = None, [1] * rows
    if isinstance(config, lw.WorldConfig):
        counts = config.depth.sample(rows, generator)
        depths = sorted(counts.tolist(), reverse=True)
        if config.objective.intermediate and config.depth.typical > 1:
            share = torch.rand(rows, generator=generator).tolist()
            taps = [1 + int(s * d) for s, d in zip(share, depths, strict=True)]
    given = config.objective.context - 1
    mask = 1.0 if getattr(config, "feedback", "") == "latent" else config.objective.mask
    hidden = np.zeros((rows, STEPS), bool)
    for k in range(given, STEPS):
        hidden[:, k] = torch.rand(rows, generator=generator).numpy() < mask
    return depths, taps, hidden


CASES = {
    "looped": lw.WorldConfig(width=8, objective=WEIGHTS),
    "no early loss": lw.WorldConfig(width=8, objective=replace(WEIGHTS, intermediate=0.0)),
    "fixed depth": lw.WorldConfig(width=8, depth=lw.depth.Fixed(5), objective=WEIGHTS),
    "uniform depth": lw.WorldConfig(width=8, depth=lw.depth.Uniform(1, 6), objective=WEIGHTS),
    "once": lw.WorldConfig(width=8, depth=lw.depth.Fixed(1), objective=WEIGHTS),
    "latent": lw.WorldConfig(width=8, feedback="latent", objective=WEIGHTS),
    "half hidden": lw.WorldConfig(width=8, objective=replace(WEIGHTS, mask=0.5)),
    "two observations": lw.WorldConfig(width=8, objective=replace(WEIGHTS, mask=0.5, context=2)),
    "all observations": lw.WorldConfig(width=8, objective=replace(WEIGHTS, context=5)),
    "three frames": lw.MLP(width=8, frames=3, objective=replace(WEIGHTS, context=3)),
    "decay": lw.WorldConfig(width=8, objective=replace(WEIGHTS, decay=0.7)),
    "decay after three observations": lw.GRU(
        width=8, objective=replace(WEIGHTS, decay=1.0, context=3)
    ),
    "robust": lw.WorldConfig(width=8, objective=replace(WEIGHTS, robust=0.3, decay=0.7)),
    "settling": lw.WorldConfig(width=8, objective=replace(WEIGHTS, settle=3.0)),
    "settling, fixed depth": lw.WorldConfig(
        width=8,
        depth=lw.depth.Fixed(5),
        objective=lw.Objective(settle=3.0, intermediate=0.0, row_clip=0.0),
    ),
    "settling, once": lw.WorldConfig(
        width=8, depth=lw.depth.Fixed(1), objective=replace(WEIGHTS, settle=3.0)
    ),
    "no carry": lw.WorldConfig(width=8, carry=False, objective=WEIGHTS),
    "frames": lw.WorldConfig(width=8, frames=3, objective=WEIGHTS),
    "renewal": lw.WorldConfig(width=8, cell=lw.Bounded(gain=1.0), objective=WEIGHTS),
    "Gaussian": lw.WorldConfig(width=8, head=lw.Gaussian(), objective=WEIGHTS),
    "MLP": lw.MLP(width=8, depth=2, objective=WEIGHTS),
    "untied": lw.Untied(blocks=3, width=8, objective=WEIGHTS),
    "GRU": lw.GRU(width=8, objective=replace(WEIGHTS, mask=0.5)),
}


@pytest.mark.parametrize("case", [*CASES, "frames; discrete", "GRU; discrete"])
def test_loss_is_the_plain_mean_over_real_steps(make, data, discrete_data, window_loss, case):
    chosen = discrete_data if "discrete" in case else data
    model, batch = make(CASES[case.split(";")[0]], chosen), windows(chosen)
    loss, metrics = sequence_loss(model.train(), batch, torch.Generator().manual_seed(5))
    depths, taps, hidden = draws(model, len(batch), seed=5)
    if not model.dynamics.carries:
        hidden[:] = False
    expected = window_loss.sequence_loss(model.eval(), batch, depths, taps, hidden)
    # The normaliser's statistics are float32, and enter in another order.
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert set(metrics) == {"error", "reward", "termination"}


def test_depths_and_masks_of_these_tests_differ_between_rows(make, data):
    depths, taps, hidden = draws(make(CASES["half hidden"], data), 7, seed=5)
    assert len(set(depths)) > 2
    assert taps is not None
    assert taps != depths
    assert 0 < hidden.mean() < 1


@pytest.mark.parametrize("case", ["half hidden", "Gaussian"])
def test_padding_does_not_matter(make, data, case):
    model, batch = make(CASES[case], data).train(), windows(data)
    padding = ~batch.valid
    other = replace(
        batch,
        obs=torch.cat([batch.obs[:, :1], batch.obs[:, 1:] + 9.0 * padding[..., None]], dim=1),
        action=batch.action + 0.3 * padding[..., None],
        reward=batch.reward - 5.0 * padding,
        terminated=batch.terminated ^ padding,
    )
    for ours, theirs in zip(gradients(model, batch), gradients(model, other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def gradients(model: Any, batch: SequenceBatch) -> list[Tensor]:
    model.requires_grad_(True)
    loss, _ = sequence_loss(model, batch, torch.Generator().manual_seed(5))
    found = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)
    model.requires_grad_(False)
    return [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(model.parameters(), found, strict=True)
    ]


@pytest.mark.parametrize("training", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("case", ["half hidden", "robust", "untied", "GRU"])
def test_gradient_of_the_loss_equals_finite_differences(make, data, case, training):
    model, batch = make(CASES[case], data).train(training), windows(data)
    found = gradients(model, batch)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        direction = [
            torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()
        ]
        slope = (
            along(model, batch, direction, 1e-6) - along(model, batch, direction, -1e-6)
        ) / 2e-6
        inner = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True))
        assert inner == pytest.approx(slope, rel=1e-6, abs=1e-8)


def along(model: Any, batch: SequenceBatch, direction: list[Tensor], size: float) -> float:
    """The loss after a step of this size in weight space."""
    for p, d in zip(model.parameters(), direction, strict=True):
        p.data += size * d
    loss, _ = sequence_loss(model, batch, torch.Generator().manual_seed(5))
    for p, d in zip(model.parameters(), direction, strict=True):
        p.data -= size * d
    return float(loss)


def test_training_the_spread_does_not_pull_on_the_mean(make, data):
    mean, gaussian = make(CASES["looped"], data), make(CASES["Gaussian"], data)
    shared = {n: v for n, v in mean.state_dict().items() if "spread" not in n}
    gaussian.load_state_dict(shared, strict=False)
    batch = windows(data)
    names = [name for name, _ in gaussian.named_parameters()]
    ours = dict(zip(names, gradients(gaussian.train(), batch), strict=True))
    names = [name for name, _ in mean.named_parameters()]
    theirs = dict(zip(names, gradients(mean.train(), batch), strict=True))
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)
    assert bool(ours["heads.spread.0.weight"].any())


def warmed(model: Any, batch: SequenceBatch, row: int) -> Any:
    """The state after the real observations that this model's windows begin with."""
    state = model.start(batch.obs[row, :1])
    for k in range(model.config.objective.context - 1):
        state = model.observe(state, batch.action[row, k : k + 1], batch.obs[row, k + 1 : k + 2])
    return state


@pytest.mark.parametrize("case", ["looped", "latent", "two observations", "three frames"])
def test_validation_error_is_that_of_imagination_after_the_context(make, data, case):
    model, batch = make(CASES[case], data), windows(data)
    squares, given = [], model.config.objective.context - 1
    for row in range(len(batch)):
        steps = int(batch.valid[row].sum())
        if steps > given:
            actions = batch.action[row : row + 1, given:steps]
            path = model.imagine(state=warmed(model, batch, row), actions=actions)
            error = path.obs[0] - batch.obs[row, given + 1 : steps + 1]
            squares += [*((error.numpy() / model.stats.change_std) ** 2).mean(-1)]
    assert validation_error(model, batch) == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)


@pytest.mark.parametrize("context", [1, 3])
def test_calibration_gives_standardised_errors_unit_variance(make, data, context):
    objective = replace(WEIGHTS, context=context)
    model = make(replace(CASES["Gaussian"], objective=objective), data)
    model.heads.spread_scale.copy_(torch.tensor([3.0, 0.2, 1.0]))
    batch, last = Windows(data, context).at(torch.arange(0, 60)), context - 1
    for _ in range(2):  # calibrating again changes nothing
        calibrate_spread(model, batch)
        z = []
        for row in torch.nonzero(batch.valid[:, last])[:, 0].tolist():
            _, out = model.step(warmed(model, batch, row), batch.action[row : row + 1, last])
            z.append(((out.next_obs - batch.obs[row, context]) / out.std).numpy())
        np.testing.assert_allclose(np.sqrt(np.mean(np.square(z), axis=(0, 1))), 1, rtol=1e-4)


def test_calibration_leaves_a_mean_head_alone(make, data):
    model = make(CASES["looped"], data)
    calibrate_spread(model, windows(data))
    assert model.predict(data.obs[:2], data.action[:2]).std is None


def test_the_settling_loss_teaches_the_loop_to_come_to_rest(data):
    def drift(settle: float) -> float:
        objective = lw.Objective(settle=settle)
        config = lw.WorldConfig(width=8, depth=lw.depth.Fixed(4), objective=objective)
        model = lw.fit(data, config, lw.FitConfig(updates=60, batch_size=32, lr=5e-3, seed=0))
        return float(model.predict(data.obs, data.action).residual.mean())

    assert drift(5.0) < 0.7 * drift(0.0)
