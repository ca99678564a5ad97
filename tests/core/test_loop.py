"""Running rows to depths of their own equals running each row alone, and costs what is run."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopwm.core.grad import Checkpointed, Full, GradientMode, LastK
from loopwm.core.loop import LoopedCore
from loopwm.core.program import LOOPWM, Program, Update, trm

# Two latents that answer each other, with a readout that is not the first.
PAIR = Program(cycle=(Update(0, ("e",)), Update(1, (0, "e"))), readout=1)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Case:
    """A core, where it starts, and the same cycle as plain calls."""

    core: LoopedCore
    cycle: Callable[..., Any]
    z: tuple[Tensor, ...]
    e: Tensor

    def leaves(self) -> list[Tensor]:
        return [*self.z, self.e, *self.core.parameters()]


@pytest.fixture(params=["bounded", "renewal", "attention", "trm"])
def case(request, bounded, post_norm, plain_loop: ModuleType) -> Case:
    cells = {
        "bounded": lambda: (bounded(), LOOPWM, plain_loop.one_latent, 1),
        "renewal": lambda: (bounded(gain=0.8), LOOPWM, plain_loop.one_latent, 1),
        "attention": lambda: (post_norm(), LOOPWM, plain_loop.one_latent, 3),
        "trm": lambda: (post_norm(seed=1), trm(2), plain_loop.trm(2), 3),
    }
    cell, program, cycle, tokens = cells[request.param]()
    z = tuple(randn(6, tokens, 6, seed=i).requires_grad_() for i in range(program.num_states))
    return Case(LoopedCore(cell, program), cycle, z, randn(6, tokens, 6, seed=9).requires_grad_())


MODES = {"full": Full(), "checkpointed": Checkpointed(), "last two": LastK(2)}
DEPTHS = {
    "sorted": [5, 4, 4, 2, 1, 1],
    "mixed": [1, 4, 2, 5, 1, 4],
    "equal": [3, 3, 3, 3, 3, 3],
    "once": [1, 1, 1, 1, 1, 1],
}
TAPS = {
    "sorted": [2, 4, 1, 2, 1, 1],
    "mixed": [1, 1, 2, 3, 1, 4],
    "equal": [3, 1, 2, 3, 1, 2],
    "once": [1, 1, 1, 1, 1, 1],
}


def loss_of(states: list[Tensor]) -> Tensor:
    return torch.stack(
        [(state * randn(*state.shape, seed=20 + i)).sum() for i, state in enumerate(states)]
    ).sum()


@pytest.mark.parametrize("order", DEPTHS)
@pytest.mark.parametrize("mode", MODES)
def test_each_row_runs_to_its_own_depth_as_if_alone(case: Case, plain_loop, mode, order):
    grad: GradientMode = MODES[mode]
    depths, taps = DEPTHS[order], TAPS[order]
    out = case.core(case.z, case.e, torch.tensor(depths), grad=grad, tap=torch.tensor(taps))
    last = grad.k if isinstance(grad, LastK) else None
    alone = plain_loop.run_rows(case.core.cell, case.cycle, case.z, case.e, depths, taps, last)
    assert out.n_iters.tolist() == depths
    assert out.n_iters.dtype == torch.int64
    assert not out.settled.any()
    assert out.residual.tolist() == pytest.approx([row.residual for row in alone], rel=1e-9)
    expected = [plain_loop.cat(alone, i) for i in range(len(case.z))]
    expected.append(torch.cat([row.tapped for row in alone]))
    states = [*out.state, out.tapped]
    for ours, theirs in zip(states, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [
        torch.autograd.grad(loss_of(each), case.leaves(), allow_unused=True)
        for each in (states, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(
            torch.zeros(()) if ours is None else ours,
            torch.zeros(()) if theirs is None else theirs,
            rtol=1e-9,
            atol=1e-11,
            check_dtype=False,
        )


def test_an_integer_depth_equals_that_depth_for_every_row(case: Case):
    one = case.core(case.z, case.e, 4)
    each = case.core(case.z, case.e, torch.full((6,), 4))
    for ours, theirs in zip(one.state, each.state, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(one.residual, each.residual)
    assert one.n_iters.tolist() == each.n_iters.tolist() == [4] * 6
    assert one.tapped is None
    assert each.tapped is None


def test_an_integer_depth_can_be_tapped(case: Case):
    taps = torch.tensor([1, 2, 3, 4, 1, 2])
    out = case.core(case.z, case.e, 4, tap=taps)
    early = case.core(case.z, case.e, taps)
    torch.testing.assert_close(
        out.tapped, early.state[case.core.program.readout], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("depth", [3, torch.tensor([3, 2, 1])], ids=["one", "per row"])
def test_the_readout_latent_is_the_one_that_is_measured(post_norm, depth):
    core = LoopedCore(post_norm(), PAIR)
    z, e = (randn(3, 2, 6), randn(3, 2, 6, seed=1)), randn(3, 2, 6, seed=2)
    out = core(z, e, depth)
    now, before = out.state[1][0], core(z, e, 2).state[1][0]
    change = float(((now - before).norm() / now.norm()).detach())
    assert float(out.residual[0]) == pytest.approx(change, rel=1e-9)


def test_the_readout_latent_is_the_one_that_is_tapped(post_norm):
    core = LoopedCore(post_norm(), PAIR)
    z, e = (randn(3, 2, 6), randn(3, 2, 6, seed=1)), randn(3, 2, 6, seed=2)
    out = core(z, e, torch.tensor([3, 2, 1]), tap=torch.tensor([3, 2, 1]))
    torch.testing.assert_close(out.tapped, out.state[1])


def test_running_on_from_a_state_equals_one_longer_run(case: Case):
    whole = case.core(case.z, case.e, 5)
    part = case.core(case.core(case.z, case.e, 3).state, case.e, 2)
    for ours, theirs in zip(part.state, whole.state, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class Counting(nn.Module):
    """Remember how many rows each refinement and each conditioning was asked for."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.num_conditions = inner.num_conditions
        self.rows: list[int] = []
        self.conditioned: list[int] = []
        self.constrained = 0

    def condition(self, e: Tensor) -> tuple[Tensor, ...]:
        self.conditioned.append(len(e))
        return self.inner.condition(e)

    def constrain(self) -> tuple[Tensor, ...]:
        self.constrained += 1
        return self.inner.constrain()

    def forward(
        self,
        h: Tensor,
        conditioning: tuple[Tensor, ...],
        weights: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        self.rows.append(len(h))
        assert weights is not None
        return self.inner(h, conditioning, weights)


def test_rows_at_their_depth_are_computed_no_more(bounded):
    cell = Counting(bounded())
    core = LoopedCore(cell)
    core((randn(6, 1, 6),), randn(6, 1, 6, seed=1), torch.tensor([1, 4, 2, 5, 1, 4]))
    assert cell.rows == [6, 4, 3, 3, 1]


def test_conditioning_and_constrained_weights_are_computed_once_per_forward(bounded):
    cell = Counting(bounded())
    LoopedCore(cell)((randn(6, 1, 6),), randn(6, 1, 6, seed=1), 7)
    assert cell.conditioned == [6]
    assert cell.constrained == 1
    assert cell.rows == [6] * 7


def test_refine_is_one_iteration(bounded, plain_loop):
    core = LoopedCore(bounded()).eval()
    h, e = randn(4, 1, 6), randn(4, 1, 6, seed=1)
    torch.testing.assert_close(core.refine(h, e), plain_loop.refine(core.cell, h, e))
    torch.testing.assert_close(core.refine(h, e), core((h,), e, 1).state[0])


def test_a_tap_and_a_stop_rule_are_refused_together(bounded):
    from loopwm.core.halt import Residual

    core, h = LoopedCore(bounded()), randn(2, 1, 6)
    with pytest.raises(ValueError, match="tap and stop cannot be used together"):
        core((h,), h, 3, stop=Residual(), tap=torch.tensor([1, 2]))


@pytest.mark.usefixtures("without_shape_checks")
def test_a_cell_must_be_a_module():
    with pytest.raises(TypeError, match=r"cell must be a torch\.nn\.Module, got function"):
        LoopedCore(lambda h, c: h)  # pyright: ignore[reportArgumentType]
