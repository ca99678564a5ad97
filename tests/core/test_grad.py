"""The gradient modes: the same gradient for less memory, or the stated part of it."""

import pytest
import torch
from torch import Tensor

from loopwm.core.cell import BoundedCell
from loopwm.core.grad import Checkpointed, Full, GradientMode, LastK
from loopwm.core.loop import LoopedCore
from loopwm.core.post_norm import PostNormCell
from loopwm.core.program import LOOPWM, trm
from loopwm.errors import ConfigError


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=["bounded", "renewal", "attention", "trm"])
def core(request, bounded, post_norm) -> LoopedCore:
    cells = {
        "bounded": lambda: LoopedCore(bounded(width=4)),
        "renewal": lambda: LoopedCore(bounded(width=4, gain=0.8)),
        "attention": lambda: LoopedCore(post_norm(width=4)),
        "trm": lambda: LoopedCore(post_norm(width=4), trm(2)),
    }
    return cells[request.param]()


def inputs(core: LoopedCore) -> tuple[tuple[Tensor, ...], Tensor]:
    z = tuple(randn(3, 2, 4, seed=i).requires_grad_() for i in range(core.program.num_states))
    return z, randn(3, 2, 4, seed=9).requires_grad_()


def gradients(core: LoopedCore, depth: int | Tensor, grad: GradientMode) -> list[Tensor]:
    z, e = inputs(core)
    out = core(z, e, depth, grad=grad)
    loss = torch.stack([(s * randn(*s.shape, seed=30)).sum() for s in out.state]).sum()
    leaves = [*z, e, *core.parameters()]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


DEPTHS = pytest.mark.parametrize("depth", [4, torch.tensor([2, 4, 1])], ids=["one", "per row"])


@DEPTHS
@pytest.mark.parametrize("grad", [Full(), Checkpointed()], ids=["full", "checkpointed"])
def test_gradient_of_the_whole_loop_equals_finite_differences(core, depth, grad):
    z, e = inputs(core)

    def function(e: Tensor, *z: Tensor) -> tuple[Tensor, ...]:
        return core(z, e, depth, grad=grad).state

    assert torch.autograd.gradcheck(function, (e, *z), atol=1e-6, fast_mode=True)


@DEPTHS
def test_checkpointing_leaves_the_gradient_as_it_is(core, depth):
    for full, again in zip(
        gradients(core, depth, Full()), gradients(core, depth, Checkpointed()), strict=True
    ):
        torch.testing.assert_close(again, full, rtol=1e-12, atol=1e-13)


@DEPTHS
def test_truncation_beyond_the_depth_is_the_full_gradient(core, depth):
    for full, cut in zip(
        gradients(core, depth, Full()), gradients(core, depth, LastK(4)), strict=True
    ):
        torch.testing.assert_close(cut, full, rtol=1e-12, atol=1e-13)


@DEPTHS
def test_truncation_really_cuts(core, depth):
    cut, full = gradients(core, depth, LastK(1)), gradients(core, depth, Full())
    assert not torch.allclose(cut[-1], full[-1])
    # Rows of depth above 1 do not reach the first latent's start; the third row's depth is 1.
    assert bool((cut[0][:2] == 0).all())
    assert bool((cut[0][2] != 0).any()) == isinstance(depth, Tensor)


def test_checkpointing_keeps_fewer_numbers_per_iteration(bounded):
    core = LoopedCore(bounded(width=4))
    z, e = inputs(core)

    def saved(grad: GradientMode) -> list[int]:
        counts = []
        for depth in (4, 8):
            kept: list[Tensor] = []
            with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
                core(z, e, depth, grad=grad)
            counts.append(sum(tensor.numel() for tensor in kept))
        return counts

    full, checkpointed = saved(Full()), saved(Checkpointed())
    assert (checkpointed[1] - checkpointed[0]) < (full[1] - full[0]) / 3


def test_no_mode_builds_a_graph_where_gradients_are_off(core):
    z, e = inputs(core)
    for grad in (Full(), Checkpointed(), LastK(2)):
        with torch.no_grad():
            out = core(z, e, 4, grad=grad)
        assert not out.state[0].requires_grad


def test_truncation_needs_at_least_one_iteration():
    with pytest.raises(ConfigError, match=r"LastK\.k must be at least 1, got 0"):
        LastK(0)


def test_programs_and_cells_of_these_tests_cover_one_and_two_latents(core):
    assert isinstance(core.cell, BoundedCell | PostNormCell)
    assert core.program == LOOPWM or core.program.num_states == 2
