"""Programs are data: which latent is refined from which, and what is computed once."""

import torch
from torch import Tensor

from loopwm.core.loop import LoopedCore
from loopwm.core.program import LOOPWM, Program, Update, trm


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_trm_program_equals_the_papers_recursion(post_norm, plain_loop):
    cell, e = post_norm(), randn(3, 4, 6)
    high, low = randn(3, 4, 6, seed=1), randn(3, 4, 6, seed=2)
    out = LoopedCore(cell, trm(3))((high, low), e, 2)
    for _ in range(2):
        for _ in range(3):
            low = plain_loop.refine(cell, low, low * 0 + high + e)
        high = plain_loop.refine(cell, high, low)
    torch.testing.assert_close(out.state[0], high, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.state[1], low, rtol=1e-12, atol=1e-12)


def test_chunks_of_cycles_equal_one_call_bit_for_bit(post_norm):
    core, e = LoopedCore(post_norm(), trm(2)), randn(3, 4, 6)
    z = (randn(3, 4, 6, seed=1), randn(3, 4, 6, seed=2))
    whole = core(z, e, 6).state
    for _ in range(3):
        z = core(z, e, 2).state
    for ours, theirs in zip(z, whole, strict=True):
        assert torch.equal(ours, theirs)


def test_a_program_of_many_latents_reads_their_sums(post_norm, plain_loop):
    cell, e = post_norm(), randn(2, 3, 6)
    program = Program(cycle=(Update(2, (0, 1, "e")), Update(0, (2,)), Update(1, ("e",))))
    a, b, c = (randn(2, 3, 6, seed=i) for i in (1, 2, 3))
    out = LoopedCore(cell, program)((a, b, c), e, 1).state
    c = plain_loop.refine(cell, c, a + b + e)
    a = plain_loop.refine(cell, a, c)
    b = plain_loop.refine(cell, b, e)
    for ours, theirs in zip(out, (a, b, c), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_bounded_cells_serve_two_latents_as_well(bounded, plain_loop):
    cell, e = bounded(), randn(3, 1, 6)
    z = (randn(3, 1, 6, seed=1), randn(3, 1, 6, seed=2))
    out = LoopedCore(cell, trm(2))(z, e, 3).state
    for _ in range(3):
        z = plain_loop.trm(2)(cell, z, e)
    torch.testing.assert_close(out[0], z[0], rtol=1e-12, atol=1e-12)


def test_programs_know_their_number_of_latents():
    assert LOOPWM.num_states == 1
    assert trm(6).num_states == 2
    assert Program(cycle=(Update(0, (2,)),)).num_states == 3
    assert len(trm(4).cycle) == 5
