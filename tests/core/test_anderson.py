"""Extrapolation reaches the same fixed point sooner, row by row, and never runs away."""

import numpy as np
import pytest
import torch

from loopwm.core.anderson import Anderson
from loopwm.core.config import Bounded, Contractive
from loopwm.core.halt import Certified, Residual
from loopwm.core.loop import LoopedCore
from loopwm.core.make import make_cell
from loopwm.core.program import trm
from loopwm.errors import ConfigError


def looped(cell: Bounded | Contractive = Contractive(rate=0.95), seed: int = 0) -> LoopedCore:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        core = LoopedCore(make_cell(12, cell)).double().eval()
        for parameter in core.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return core.requires_grad_(False)


def inputs(rows: int = 20, tokens: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    h, e = torch.randn(2, rows, tokens, 12, generator=generator, dtype=torch.float64)
    return h, e


def plain_step(memory: int, ridge: float, xs: list, gs: list) -> np.ndarray:
    """Return the next state from all states so far and their iterates, by least squares."""
    fs = [g - x for x, g in zip(xs, gs, strict=True)]
    diffs = range(max(0, len(xs) - 1 - memory), len(xs) - 1)
    if not diffs:
        return gs[-1]
    df = np.stack([fs[i + 1] - fs[i] for i in diffs], axis=1)
    dg = np.stack([gs[i + 1] - gs[i] for i in diffs], axis=1)
    # The mean is over `memory` places, of which some may be empty yet.
    penalty = ridge * (df**2).sum() / memory
    gamma = np.linalg.solve(df.T @ df + penalty * np.eye(df.shape[1]), df.T @ fs[-1])
    return gs[-1] - dg @ gamma


@torch.no_grad()
def test_it_is_what_a_plain_loop_over_one_row_computes() -> None:
    core, (h, e) = looped(), inputs(rows=3)
    core.solver = Anderson(memory=3)
    for row in range(3):
        xs, gs = [h[row].numpy().ravel()], []
        for t in range(1, 8):
            x = torch.as_tensor(xs[-1]).view(1, 1, 12)
            gs.append(core.refine(x, e[row : row + 1]).numpy().ravel())
            sizes = [np.linalg.norm(g - x) for x, g in zip(xs, gs, strict=True)]
            if sizes != sorted(sizes, reverse=True):
                break  # the fall-back, which another test covers
            xs.append(plain_step(3, 1e-4, xs, gs))
            ours = core((h,), e, t).state[0][row].numpy().ravel()
            np.testing.assert_allclose(ours, xs[-1], rtol=1e-7, atol=1e-9)
        assert len(xs) > 4


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 3])
def test_the_fixed_point_is_the_same_and_reached_sooner(tokens: int) -> None:
    core, (h, e) = looped(), inputs(tokens=tokens)
    rest = core((h,), e, 2000).state[0]
    plain = core((h,), e, 500, stop=Residual(1e-8))
    core.solver = Anderson()
    fast = core((h,), e, 500, stop=Residual(1e-8))
    assert fast.settled.all()
    assert len(fast.state) == 1
    torch.testing.assert_close(fast.state[0], rest, rtol=1e-5, atol=1e-6)
    assert fast.n_iters.double().mean() < 0.7 * plain.n_iters.double().mean()


@torch.no_grad()
def test_rows_do_not_depend_on_their_neighbours() -> None:
    core, (h, e) = looped(), inputs()
    core.solver = Anderson()
    together = core((h,), e, 40, stop=Residual(1e-5))
    for row in (0, 7, 19):
        alone = core((h[row : row + 1],), e[row : row + 1], 40, stop=Residual(1e-5))
        assert alone.n_iters == together.n_iters[row]
        torch.testing.assert_close(alone.state[0][0], together.state[0][row])


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
def test_the_residual_of_accepted_states_never_grows(seed: int) -> None:
    core, (h, e) = looped(seed=seed), inputs()
    solver = Anderson(memory=5, ridge=1e-12)
    state, fixed = solver.begin((10 * h,)), core.program.prepare(core.cell, e)
    before, rejected = None, 0
    for _ in range(60):
        state = solver.step(lambda c, *z: core.program.iterate(core.cell, z, c), fixed, *state)
        size = state[3].norm(dim=1)
        if before is not None:
            assert (size <= before * (1 + 1e-12)).all()
            rejected += int((size == before).sum())
        before = size
    assert before is not None
    assert (before < 1e-6).all()
    # Only a test of the fall-back if there is something to fall back from.
    assert rejected > 0


def test_with_gradient_the_plain_loop_runs() -> None:
    core, (h, e) = looped(Bounded()), inputs()
    plain = core((h,), e, 5).state[0]
    core.solver = Anderson()
    wanted = core((h.clone().requires_grad_(),), e, 5).state[0]
    torch.testing.assert_close(wanted.detach(), plain, rtol=0, atol=0)
    core.requires_grad_(True)
    torch.testing.assert_close(core((h,), e, 5).state[0].detach(), plain, rtol=0, atol=0)


def test_where_nothing_wants_a_gradient_the_solver_runs_whatever_the_mode() -> None:
    core, (h, e) = looped(Bounded()), inputs()
    plain = core((h,), e, 5).state[0]
    core.solver = Anderson()
    solved = core((h,), e, 5).state[0]
    assert not torch.equal(solved, plain)
    with torch.no_grad():
        torch.testing.assert_close(core((h,), e, 5).state[0], solved, rtol=0, atol=0)


@torch.no_grad()
def test_a_ridge_below_the_resolution_of_the_type_leaves_no_matrix_singular() -> None:
    core, (h, e) = looped().float(), inputs()
    core.solver = Anderson(ridge=1e-12)
    out = core((h.float(),), e.float(), 60)
    assert torch.isfinite(out.state[0]).all()


@torch.no_grad()
def test_what_cannot_be_accelerated_is_refused() -> None:
    core, (h, e) = looped(), inputs()
    two = LoopedCore(core.cell, trm())
    two.solver = Anderson()
    with pytest.raises(ConfigError, match="one latent"):
        two((h, h), e, 3)
    core.solver = Anderson()
    proven = Certified().proven(core.cell.proven_rate(), 1.0, 12)  # pyright: ignore
    with pytest.raises(ConfigError, match=r"halt=Certified.* is proven of the plain loop, which"):
        core((h,), e, 3, stop=proven)
    with pytest.raises(ConfigError, match=r"Anderson\.memory"):
        Anderson(memory=0)
    with pytest.raises(ConfigError, match=r"Anderson\.ridge"):
        Anderson(ridge=0.0)
