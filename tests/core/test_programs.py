"""What holds for every program, whichever latents it refines from which: one suite over all."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from loopwm.core.cell import BoundedCell
from loopwm.core.config import Attend, Bounded, MixTokens, PostNorm
from loopwm.core.grad import Full, GradientMode, LastK
from loopwm.core.halt import Residual
from loopwm.core.loop import LoopedCore
from loopwm.core.post_norm import PostNormCell
from loopwm.core.program import LOOPWM, Program, Update, one_latent, trm

Cell = BoundedCell | PostNormCell
TOKENS, WIDTH, ROWS = 3, 8, 5
PROGRAMS = {
    "LoopWM": LOOPWM,
    "TRM": trm(2),
    "one latent": one_latent(2),
    "two that answer": Program(cycle=(Update(0, ("e",)), Update(1, (0, "e"))), readout=1),
}
CELLS: dict[str, Callable[[], Cell]] = {
    "bounded": lambda: BoundedCell(WIDTH, Bounded()),
    "attention": lambda: PostNormCell(WIDTH, PostNorm(Attend(2, theta=1e4), multiple=8), TOKENS),
    "perceptron": lambda: PostNormCell(WIDTH, PostNorm(MixTokens(), multiple=8), TOKENS),
}


@dataclass
class Case:
    """A core, where it starts, and what it is conditioned on."""

    core: LoopedCore
    z: tuple[Tensor, ...]
    e: Tensor

    def leaves(self) -> list[Tensor]:
        return [self.e, *self.core.parameters()]


@pytest.fixture(params=CELLS)
def cell(request) -> Cell:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CELLS[request.param]().double()


@pytest.fixture(params=PROGRAMS)
def case(request, cell) -> Case:
    program = PROGRAMS[request.param]

    def randn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(ROWS, TOKENS, WIDTH, generator=generator, dtype=torch.float64)

    z = tuple(randn(i) for i in range(program.num_states))
    return Case(LoopedCore(cell, program), z, randn(9).requires_grad_())


def same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], tol: float = 1e-9) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize("grad", [Full(), LastK(1)], ids=["full", "last cycle"])
def test_active_rows_equal_each_row_run_alone(case: Case, grad: GradientMode):
    depths = [1, 4, 2, 4, 3]
    together = case.core(case.z, case.e, torch.tensor(depths), grad=grad)
    alone = [
        case.core(tuple(s[i : i + 1] for s in case.z), case.e[i : i + 1], depth, grad=grad)
        for i, depth in enumerate(depths)
    ]
    states = tuple(torch.cat(parts) for parts in zip(*(a.state for a in alone), strict=True))
    same(together.state, states)
    assert together.n_iters.tolist() == depths
    gradients = [
        torch.autograd.grad(sum((s.square().sum() for s in each), torch.zeros(())), case.leaves())
        for each in (together.state, states)
    ]
    same(gradients[0], gradients[1], tol=1e-7)


def test_rows_that_a_stop_rule_freed_equal_each_row_run_alone(case: Case):
    rule = Residual(tol=0.3)
    with torch.no_grad():
        together = case.core(case.z, case.e, 6, stop=rule)
        for i in range(ROWS):
            one = slice(i, i + 1)
            alone = case.core(tuple(s[one] for s in case.z), case.e[one], 6, stop=rule)
            same(tuple(s[one] for s in together.state), alone.state)
            assert int(together.n_iters[i]) == int(alone.n_iters[0])


def test_chunks_of_cycles_equal_one_call(case: Case):
    with torch.no_grad():
        whole, z = case.core(case.z, case.e, 6).state, case.z
        for depth in (1, 3, 2):
            z = case.core(z, case.e, depth).state
    for ours, theirs in zip(z, whole, strict=True):
        assert torch.equal(ours, theirs)


def test_the_last_cycle_alone_equals_constants_before_it(case: Case):
    ours = case.core(case.z, case.e, 3, grad=LastK(1)).state
    with torch.no_grad():
        later = case.core(case.z, case.e, 2).state
    theirs = case.core(later, case.e, 1).state
    same(ours, theirs)
    gradients = [
        torch.autograd.grad(sum((s.square().sum() for s in each), torch.zeros(())), case.leaves())
        for each in (ours, theirs)
    ]
    same(gradients[0], gradients[1])


# The hook of jaxtyping makes torch.compile raise false type errors; and torch's compiler warns
# about torch's own use of what it deprecates.
@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager(case: Case):
    torch.compiler.reset()
    core = case.core.train()
    # What is traced, with its backward pass; test_compile.py has cases with generated kernels.
    compiled = torch.compile(core, backend="aot_eager")
    found = []
    for run in (core, compiled):
        state = run(case.z, case.e, 2, grad=LastK(1)).state
        loss = sum((s.square().sum() for s in state), torch.zeros(()))
        found.append((state, torch.autograd.grad(loss, case.leaves())))
    torch.compiler.reset()
    same(found[1][0], found[0][0])
    same(found[1][1], found[0][1], tol=1e-7)


def test_an_update_that_adds_nothing_is_conditioned_on_zero(cell: Cell):
    core = LoopedCore(cell, Program(cycle=(Update(0, ()),)))
    h = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(3)).double()
    e = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(4)).double()
    same(core((h,), e, 1).state, LoopedCore(cell)((h,), torch.zeros_like(e), 1).state)
