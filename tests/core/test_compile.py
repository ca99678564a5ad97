"""What torch.compile makes of the loop equals what eager mode computes."""

import pytest
import torch

from loopwm.core.cell import BoundedCell
from loopwm.core.config import Attend, Bounded, MixTokens, PostNorm
from loopwm.core.grad import LastK
from loopwm.core.loop import LoopedCore
from loopwm.core.post_norm import PostNormCell
from loopwm.core.program import trm

# The hook of jaxtyping makes torch.compile raise false type errors; and torch's compiler warns
# about torch's own use of what it deprecates.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("without_shape_checks"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.manual_seed(0)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("gain", [None, 0.8], ids=["sum", "renewal"])
def test_compiled_inference_equals_eager(gain):
    core = LoopedCore(BoundedCell(16, Bounded(gain=gain))).eval().requires_grad_(False)
    h, e = torch.randn(32, 1, 16), torch.randn(32, 1, 16)
    eager = core((h,), e, 4)
    out = torch.compile(core)((h,), e, 4)
    torch.testing.assert_close(out.state[0], eager.state[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.residual, eager.residual, rtol=1e-3, atol=1e-6)
    assert out.n_iters.tolist() == eager.n_iters.tolist()


def test_compiled_inference_of_two_latents_equals_eager():
    core = (
        LoopedCore(PostNormCell(16, PostNorm(Attend(2), multiple=16)), trm(2))
        .eval()
        .requires_grad_(False)
    )
    z, e = (torch.randn(8, 3, 16), torch.randn(8, 3, 16)), torch.randn(8, 3, 16)
    eager, out = core(z, e, 2), torch.compile(core)(z, e, 2)
    for ours, theirs in zip(out.state, eager.state, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_compiled_training_has_the_gradients_of_eager():
    core = LoopedCore(BoundedCell(16, Bounded())).train()
    h, e = torch.randn(32, 1, 16), torch.randn(32, 1, 16, requires_grad=True)
    leaves = [e, *core.parameters()]
    eager = torch.autograd.grad(core((h,), e, 3).state[0].square().sum(), leaves)
    compiled = torch.compile(core, backend="aot_eager")
    ours = torch.autograd.grad(compiled((h,), e, 3).state[0].square().sum(), leaves)
    for a, b in zip(ours, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mixer", [Attend(2, theta=1e4), MixTokens()], ids=["places", "perceptron"])
def test_a_compiled_cell_of_blocks_has_the_gradients_of_eager(mixer):
    config = PostNorm(mixer, multiple=16)
    cells = [PostNormCell(16, config, tokens=3) for _ in range(2)]
    cells[1].load_state_dict(cells[0].state_dict())
    cells[1].compile(backend="aot_eager")
    z, e = (torch.randn(8, 3, 16), torch.randn(8, 3, 16)), torch.randn(8, 3, 16)
    found = []
    for cell in cells:
        out = LoopedCore(cell, trm(2))(z, e, 2, grad=LastK(1))
        found.append(torch.autograd.grad(out.state[0].square().sum(), list(cell.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
