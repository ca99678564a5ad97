"""The recurrent state-space model draws, infers and is trained as its papers say."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import distributions

import loopwm as lw
from loopwm.data.replay import Windows
from loopwm.world.dynamics import Run
from loopwm.world.objective import sequence_loss

KINDS = ("RSSM", "RSSM, classes")


def of(stated: torch.Tensor, classes: int | None) -> distributions.Distribution:
    if classes is None:
        mean, raw = stated.chunk(2, dim=1)
        std = torch.nn.functional.softplus(raw) + 0.1
        return distributions.Independent(distributions.Normal(mean, std), 1)
    logits = stated.unflatten(1, (-1, classes))
    return distributions.Independent(distributions.OneHotCategorical(logits=logits), 1)


@pytest.fixture(params=KINDS)
def dynamics(request, make, kinds, data) -> Any:
    return make(kinds[request.param], data, noise=0.7).dynamics


def entering(rows: int, dynamics: Any, hidden: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(rows, sum(dynamics.parts), generator=generator, dtype=torch.float64)
    x[:, -1] = hidden
    return x


def test_the_divergence_is_torchs_beyond_the_free_nats(dynamics):
    carry, x = dynamics.initial(50), entering(50, dynamics)
    carry = (entering(50, dynamics)[:, :1].expand_as(carry[0]), carry[1])
    classes = dynamics.config.classes
    posterior = of(dynamics.posterior(torch.cat([carry[0], x[:, :3]], dim=1)), classes)
    prior = of(dynamics.prior(carry[0]), classes)
    nats = distributions.kl_divergence(posterior, prior)
    config, free = dynamics.config, float(nats.median())
    dynamics.config = replace(config, free=free)
    found = dynamics.divergence(carry, x)
    dynamics.config = config
    torch.testing.assert_close(found, config.kl * nats.clamp_min(free))


def test_the_balance_divides_the_gradient_between_expectation_and_inference(dynamics):
    x, config = entering(20, dynamics), dynamics.config
    dynamics.requires_grad_(True)
    found = {}
    for share in (0.8, 0.2):
        dynamics.config = replace(config, balance=share, free=0.0)
        loss = dynamics.divergence(dynamics.initial(20), x).sum()
        weights = (dynamics.prior[2].weight, dynamics.posterior[2].weight)
        found[share] = torch.autograd.grad(loss, weights)
    dynamics.requires_grad_(False)
    dynamics.config = config
    # Each is weighed by its share: four times as much at .8 as at .2, and the other way round.
    torch.testing.assert_close(found[0.8][0], 4 * found[0.2][0])
    torch.testing.assert_close(4 * found[0.8][1], found[0.2][1])


def test_draws_have_the_stated_mean(dynamics):
    rows = 20_000
    x = entering(1, dynamics).expand(rows, -1)
    carry = tuple(each[:1].expand(rows, -1) for each in dynamics.initial(1))
    drawn = dynamics._latent(
        dynamics.posterior(torch.cat([carry[0], x[:, :3]], dim=1)), torch.Generator().manual_seed(0)
    )
    mean = of(
        dynamics.posterior(torch.cat([carry[0], x[:, :3]], dim=1))[:1], dynamics.config.classes
    )
    expected = mean.mean.flatten()
    # Twenty thousand draws of a spread of at most a few: three standard errors.
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.05, rtol=0)
    assert drawn.std(0).max() > 0.1


def test_a_hidden_observation_is_not_looked_at_and_the_expected_latent_is_taken(dynamics):
    x = entering(5, dynamics, hidden=1.0)
    carry = tuple(torch.randn(each.shape, dtype=torch.float64) for each in dynamics.initial(5))
    other = x.clone()
    other[:, :3] += 1.0
    run = Run(1)
    assert torch.equal(dynamics(carry, x, run).feature, dynamics(carry, other, run).feature)
    moved = (carry[0], carry[1] + 1.0)
    assert not torch.equal(dynamics(carry, x, run).feature, dynamics(moved, x, run).feature)
    x[:, -1] = 0.0
    assert torch.equal(dynamics(carry, x, run).feature, dynamics(moved, x, run).feature)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_adds_the_divergence_of_every_real_step(make, kinds, data, kind):
    model = make(replace(kinds[kind], kl=0.0), data).train()
    batch = Windows(data, 4).at(torch.tensor([0, 26, 28, 60]))
    batch = replace(
        batch, obs=batch.obs.double(), action=batch.action.double(), reward=batch.reward.double()
    )
    plain, _ = sequence_loss(model, batch, torch.Generator().manual_seed(1))
    model.dynamics.config = kinds[kind]
    loss, metrics = sequence_loss(model, batch, torch.Generator().manual_seed(1))
    assert float(metrics["divergence"]) >= 0.01
    assert float(loss - plain) == pytest.approx(float(metrics["divergence"]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(make, kinds, data, kind):
    model = make(replace(kinds[kind], free=0.0), data).train().requires_grad_(True)
    batch = Windows(data, 3).at(torch.arange(0, 120, 3))
    batch = replace(
        batch, obs=batch.obs.double(), action=batch.action.double(), reward=batch.reward.double()
    )
    sequence_loss(model, batch, torch.Generator().manual_seed(1))[0].backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_the_same_seed_draws_the_same_training_run(data):
    config = lw.FitConfig(updates=4, batch_size=16, seed=3)
    first, second = (lw.fit(data, lw.RSSM(width=8, latent=4), config) for _ in range(2))
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_input_and_output_layers_of_the_latent_are_kept_from_muon(dynamics):
    flagged = {name for name, each in dynamics.named_parameters() if hasattr(each, "_no_muon")}
    layers = ("enter", "posterior.0", "posterior.2", "prior.2")
    assert flagged == {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
