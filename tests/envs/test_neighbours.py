"""Each ball's latent hears from its neighbours alone, one ball farther with each iteration."""

import numpy as np
import pytest
import torch
from torch import nn

from loopwm.core.halt import Fixed, OutputDelta
from loopwm.data.normalise import Statistics
from loopwm.world.config import WorldConfig
from loopwm.world.dynamics import Run
from loopwm_envs import Chain, sample_transitions
from loopwm_envs.extrapolation import dataset
from loopwm_envs.neighbours import BallDynamics, NeighbourCell, PerBall, build_local

BALLS, WIDTH = 6, 8


def dynamics(blocks: int, seed: int = 0) -> BallDynamics:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = BallDynamics(BALLS, WIDTH, blocks).double()
    return made.requires_grad_(False)


def inputs(rows: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 2 * BALLS + 2, generator=generator, dtype=torch.float64)


def latents(model: BallDynamics, x: torch.Tensor, depth: int) -> torch.Tensor:
    return model((), x, Run(depth)).feature.unflatten(1, (BALLS, WIDTH))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_news_of_the_first_ball_has_come_as_far_as_the_iterations(depth: int) -> None:
    x = inputs()
    changed = x.clone()
    changed[:, [0, BALLS]] += 1.0  # position and velocity of the first ball
    for model in (dynamics(0), dynamics(depth)):
        moved = (latents(model, changed, depth) - latents(model, x, depth)).abs().amax(dim=(0, 2))
        assert (moved[:depth] > 1e-8).all()
        assert (moved[depth:] == 0).all()


def test_a_refinement_is_that_of_each_ball_computed_alone() -> None:
    cell = dynamics(1).blocks[0]
    assert isinstance(cell, NeighbourCell)
    generator = torch.Generator().manual_seed(2)
    h, e = torch.randn(2, 3, BALLS, WIDTH, generator=generator, dtype=torch.float64)
    found = cell(h, cell.condition(e))
    weights = {name: value.numpy() for name, value in cell.named_parameters()}
    normal = h.numpy() / np.sqrt(np.square(h.numpy()).mean(axis=-1, keepdims=True))
    lowest = -np.log(0.98)
    retention = np.exp(-(np.exp(weights["log_rate"]) + lowest))
    for row in range(3):
        for ball in range(BALLS):
            seen = [
                normal[row, each] if 0 <= each < BALLS else np.zeros(WIDTH)
                for each in (ball - 1, ball, ball + 1)
            ]
            given = e.numpy()[row, ball]
            entered = weights["from_state.weight"] @ np.concatenate(seen)
            entered += weights["from_injection.weight"] @ given + weights["from_injection.bias"]
            gate, value = entered[:WIDTH], entered[WIDTH:]
            inner = gate / (1 + np.exp(-gate)) * value
            expected = retention * h.numpy()[row, ball] + weights["inject.weight"] @ given
            expected += weights["leave.weight"] @ inner
            # Normalising keeps a millionth of the width away from a division by nothing.
            np.testing.assert_allclose(found[row, ball].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_loop_is_the_stack_whose_blocks_are_all_the_same() -> None:
    loop, stack = dynamics(0), dynamics(4, seed=1)
    shared = {k: v for k, v in loop.state_dict().items() if not k.startswith("core.")}
    stack.load_state_dict(shared, strict=False)
    for block in stack.blocks:
        assert isinstance(loop.core.cell, nn.Module)
        block.load_state_dict(loop.core.cell.state_dict())
    torch.testing.assert_close(latents(stack, inputs(), 1), latents(loop, inputs(), 4))


def test_each_ball_is_decoded_from_its_own_latent() -> None:
    head = PerBall(BALLS * WIDTH, 2 * BALLS)
    feature = torch.randn(BALLS, WIDTH, generator=torch.Generator().manual_seed(0))
    change = head(feature.flatten())
    for ball in range(BALLS):
        alone = head.decode(feature[ball])
        assert torch.allclose(change[[ball, BALLS + ball]], alone)


def test_the_model_has_the_verbs_and_stops_rows_where_they_settle() -> None:
    data = dataset(sample_transitions(np.random.default_rng(0), 200, Chain(BALLS), 3))
    config = WorldConfig(width=WIDTH)
    model = build_local(config, 0, data.meta, Statistics.of(data), 0).eval()
    obs, action = data.obs.astype(np.float32), data.action
    out = model.predict(obs, action, halt=OutputDelta(1e-3), max_iters=20)
    counts = np.unique(out.n_iters)
    assert len(counts) > 1
    for count in counts:
        rows = out.n_iters == count
        alone = model.predict(obs[rows], action[rows], halt=Fixed(int(count)))
        np.testing.assert_allclose(out.next_obs[rows], alone.next_obs, rtol=1e-4, atol=1e-4)
