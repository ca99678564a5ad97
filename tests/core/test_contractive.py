"""The contraction holds against every attempt to break it; what is unconstrained does break."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from loopwm.core.block import rms_norm
from loopwm.core.cell import BoundedCell
from loopwm.core.certificate import box_bound, certify, local_gain
from loopwm.core.config import Attend, Bounded, Contractive, PostNorm
from loopwm.core.contractive import ContractiveCell, LipschitzLayer
from loopwm.core.halt import Certified
from loopwm.core.post_norm import PostNormCell
from loopwm.errors import ConfigError

REPEATABLE = settings(max_examples=25, deadline=None, derandomize=True, database=None)
# Rounding of float64, on distances of order one.
ROUNDING = 1e-12
SCALES = pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
# Of ten thousand iterations alike, shapes need not be checked.
UNCHECKED = pytest.mark.usefixtures("without_shape_checks")
FORMS = pytest.mark.parametrize("gated", [False, True], ids=["fixed", "gated"])


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def contractive(
    width: int = 6, scale: float = 1.0, seed: int = 0, noise: float = 0.5, **settings: Any
) -> ContractiveCell:
    """A cell whose every weight has noise, then is scaled against the proof."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cell = ContractiveCell(width, Contractive(**settings)).double()
        with torch.no_grad():
            for p in cell.parameters():
                p.add_(noise * torch.randn_like(p)).mul_(scale)
    return cell.eval()


def refine(cell: nn.Module, h: Tensor, e: Tensor) -> Tensor:
    return cell(h, cell.condition(e))  # type: ignore[operator]  # any nn.Module with the verbs of a cell


def worst_expansion(
    function: Any, a: Tensor, b: Tensor, steps: int = 100, slack: float = 0.0
) -> float:
    """Search by gradient ascent for the pair that a function moves apart the most.

    What rounding may add to a distance does not count.
    """
    pair = [a.clone().requires_grad_(), b.clone().requires_grad_()]
    optimizer = torch.optim.Adam(pair, lr=0.05)
    worst = 0.0
    for _ in range(steps):
        out = (function(pair[0]) - function(pair[1])).flatten(1).norm(dim=1)
        ratio = out / (pair[0] - pair[1]).flatten(1).norm(dim=1)
        apart = (pair[0] - pair[1]).detach().flatten(1).norm(dim=1)
        worst = max(worst, float(((out.detach() - slack) / apart).max()))
        optimizer.zero_grad()
        (-ratio.log().sum()).backward()
        optimizer.step()
    return worst


def plain_layer(layer: LipschitzLayer, x: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """`x - 2 W T^-1 relu(W'x + c)`, number by number."""
    w, q = (
        layer.weight.detach().numpy().T,
        (8 * (layer.log_scale.detach() / 8).tanh()).exp().numpy(),
    )
    out = x.copy()
    for i in range(w.shape[1]):
        t = sum(abs(w[:, i] @ w[:, j]) * q[j] / q[i] for j in range(w.shape[1]))
        out -= 2 * w[:, i] / t * max(0.0, w[:, i] @ x + shift[i])
    return out


@FORMS
def test_the_cell_equals_its_equation_number_by_number(gated):
    cell = contractive(gated=gated, layers=2, expand=1.5)
    h, e = randn(3, 2, 6, seed=1), randn(3, 2, 6, seed=2)
    out = refine(cell, h, e)
    w = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    for row in range(3):
        for token in range(2):
            state, given_e = h[row, token].numpy(), e[row, token].numpy()
            logits = w["shares"].copy()
            if gated:
                logits += (w["divide.weight"] @ given_e + w["divide.bias"]).reshape(3, 6)
            shares = np.exp(logits) / np.exp(logits).sum(0)
            retained, mixed = 0.95 * shares[0], 0.95 * shares[1]
            shifts = np.split(w["shift.weight"] @ given_e + w["shift.bias"], 2)
            x = np.sqrt(mixed) * state
            for layer, shift in zip(cell.layers, shifts, strict=True):
                assert isinstance(layer, LipschitzLayer)
                x = plain_layer(layer, x, shift)
            expected = retained * state + np.sqrt(mixed) * x + w["inject.weight"] @ given_e
            np.testing.assert_allclose(out[row, token].detach(), expected, rtol=1e-10, atol=1e-12)


@given(
    scale=st.floats(-3, 4).map(lambda power: 10**power),
    spread=st.floats(0, 5),
    seed=st.integers(0, 2**16),
)
@REPEATABLE
def test_a_layer_moves_no_pair_apart_whatever_its_weights(scale, spread, seed):
    layer = LipschitzLayer(5, 8).double()
    with torch.no_grad():
        layer.weight.copy_(randn(8, 5, seed=seed, scale=scale))
        layer.log_scale.copy_(randn(8, seed=seed + 1, scale=spread))
    enter, leave = layer.constrain()
    a, b, shift = (randn(64, n, seed=seed + i) for i, n in ((2, 5), (3, 5), (4, 8)))
    shift = scale * shift
    moved = layer.apply_to(a, shift, enter, leave) - layer.apply_to(b, shift, enter, leave)
    assert bool((moved.norm(dim=1) <= (a - b).norm(dim=1) * (1 + 1e-9)).all())


def test_a_layer_with_weights_of_zero_changes_nothing():
    layer = LipschitzLayer(4, 3)
    nn.init.zeros_(layer.weight)
    x = randn(2, 4).float()
    torch.testing.assert_close(layer.apply_to(x, torch.ones(2, 3), *layer.constrain()), x)


@FORMS
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("rate", [0.5, 0.95, 0.999])
def test_gradient_ascent_finds_no_pair_that_breaks_the_rate(rate, tokens, scale, gated):
    cell = contractive(scale=scale, rate=rate, gated=gated)
    e = randn(32, tokens, 6, seed=3)
    a, b = randn(32, tokens, 6, seed=4, scale=3), randn(32, tokens, 6, seed=5, scale=3)
    proof = certify(cell, float(e.flatten(1).norm(dim=1).max()), torch.zeros(6), ())
    assert proof.rate is not None
    assert proof.slack is not None
    assert proof.rate <= rate * (1 + 1e-9)
    assert proof.state_bound is not None
    assert proof.slack < 1e-12 * proof.state_bound
    found = worst_expansion(lambda h: refine(cell, h, e), a, b, slack=proof.slack)
    assert found <= proof.rate * (1 + ROUNDING)


def test_the_rate_is_nearly_reached_so_the_proof_is_not_idle():
    cell = contractive(rate=0.9, noise=0.05)
    with torch.no_grad():
        cell.shares[2] = -20.0  # nothing is given up
    e = randn(32, 1, 6, seed=3)
    worst = worst_expansion(lambda h: refine(cell, h, e), randn(32, 1, 6), randn(32, 1, 6, seed=1))
    assert 0.8 < worst <= 0.9 + ROUNDING


@FORMS
@SCALES
@UNCHECKED
def test_ten_thousand_iterations_stay_bounded_and_forget_where_they_began(scale, gated):
    cell = contractive(scale=scale, gated=gated, rate=0.98)
    e = randn(8, 1, 6, seed=3)
    bound = cell.proven_bound(float(e.norm(dim=-1).max()), torch.zeros(6, dtype=torch.float64))
    with torch.no_grad():
        conditioning, weights = cell.condition(e), cell.constrain()
        # One begins at the origin, the other far away.
        h, other = torch.zeros(8, 1, 6).double(), randn(8, 1, 6, seed=4, scale=1e3)
        apart = float((h - other).norm(dim=-1).max())
        largest = 0.0
        for t in range(1, 10_001):
            h, other = cell(h, conditioning, weights), cell(other, conditioning, weights)
            largest = max(largest, float(h.norm(dim=-1).max()))
            if t in (1, 10, 100, 1000):
                distance = float((h - other).norm(dim=-1).max())
                assert distance <= 0.98**t * apart * (1 + 1e-9) + 1e-11 * largest
    assert largest <= bound * (1 + 1e-9)
    torch.testing.assert_close(h, other, rtol=1e-9, atol=1e-9)


def test_the_distance_to_the_fixed_point_is_bounded_by_the_last_step():
    cell, e = contractive(rate=0.9), randn(16, 1, 6, seed=3)
    with torch.no_grad():
        path = [randn(16, 1, 6, seed=4)]
        for _ in range(400):
            path.append(refine(cell, path[-1], e))
    for t in range(40):
        step = (path[t + 1] - path[t]).norm(dim=-1)
        assert bool(((path[t] - path[-1]).norm(dim=-1) <= step / (1 - 0.9) + ROUNDING).all())


@SCALES
def test_in_float32_rounding_adds_less_than_the_stated_slack(scale):
    cell = contractive(scale=scale).float()
    e = randn(64, 1, 6, seed=3).float()
    reach = float(e.norm(dim=-1).max())
    proof = certify(cell, reach, torch.zeros(6), ())
    assert proof.rate is not None
    assert proof.slack is not None
    assert proof.dtype == "float32"
    a = randn(64, 1, 6, seed=4).float()
    for distance in (1e-6, 1e-3, 1.0):
        b = a + distance * randn(64, 1, 6, seed=5).float()
        before = (a.double() - b.double()).norm(dim=-1)
        after = (refine(cell, a, e).double() - refine(cell, b, e).double()).norm(dim=-1)
        assert bool((after <= proof.rate * before + proof.slack).all())


def bounded(scale: float, gain: float | None) -> BoundedCell:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cell = BoundedCell(6, Bounded(gain=gain)).double()
        with torch.no_grad():
            for p in cell.parameters():
                p.add_(0.5 * torch.randn_like(p)).mul_(scale)
    return cell.eval()


@SCALES
@UNCHECKED
@pytest.mark.parametrize("gain", [None, 0.7])
def test_the_bounded_cell_keeps_its_bound_for_ten_thousand_iterations(scale, gain):
    cell, e = bounded(scale, gain), randn(8, 1, 6, seed=3)
    start = randn(6, seed=4)
    bound = cell.proven_bound(float(e.norm(dim=-1).max()), start)
    with torch.no_grad():
        h = start.expand(8, 1, 6)
        conditioning, weights, largest = cell.condition(e), cell.constrain(), 0.0
        for _ in range(10_000):
            h = cell(h, conditioning, weights)
            largest = max(largest, float(h.norm(dim=-1).max()))
    assert largest <= bound


def test_retention_alone_blows_up_where_the_bounded_cell_does_not():
    """LoopWM's equation 5: retention below one, a residual that nothing bounds."""
    cell, e = bounded(1.5, None), randn(8, 1, 6, seed=3)
    retention, _ = cell.constrain()
    injected, bias = cell.condition(e)
    ours = free = randn(8, 1, 6, seed=4)
    with torch.no_grad():
        for _ in range(30):
            ours = refine(cell, ours, e)
            gate, value = (free @ cell.from_state.T + bias).chunk(2, dim=-1)
            free = retention * free + injected + (nn.functional.silu(gate) * value) @ cell.leave.T
    assert float(retention.detach().max()) < 1
    assert float(free.nan_to_num(nan=math.inf).norm(dim=-1).max()) > 1e9
    assert float(ours.norm(dim=-1).max()) < 1e4


@FORMS
def test_the_measured_gain_is_the_norm_of_the_jacobian(gated):
    cell, h, e = contractive(gated=gated), randn(4, 2, 6, seed=1), randn(4, 2, 6, seed=2)
    gains = local_gain(cell, h, e, steps=3000)
    for row in range(4):
        one = e[row : row + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda state, one=one: refine(cell, state, one), h[row : row + 1]
        )
        exact = torch.linalg.matrix_norm(jacobian.reshape(12, 12), 2)
        assert float(gains[row]) == pytest.approx(float(exact), rel=1e-4)
    assert float(gains.max()) <= cell.proven_rate()


def test_a_certificate_says_what_is_proven_and_what_is_not():
    start = torch.zeros(6, dtype=torch.float64)
    proofs = {
        name: certify(cell, 2.0, start, ("inputs are clipped",))
        for name, cell in {
            "contractive": contractive(),
            "bounded": bounded(1.0, None),
            "post": PostNormCell(6, PostNorm(Attend(2), multiple=5)).double(),
            "plain": nn.Linear(6, 6).double(),
        }.items()
    }
    assert {name: proof.rate is not None for name, proof in proofs.items()} == {
        **{"contractive": True, "bounded": False, "post": False, "plain": False}
    }
    assert proofs["post"].state_bound == pytest.approx(math.sqrt(6))
    assert proofs["plain"].state_bound is None
    text = str(proofs["bounded"])
    assert "contraction rate   nothing proven" in text
    assert "assumes: inputs are clipped" in text
    assert "exact arithmetic" in text


def test_rounded_weights_that_prove_no_rate_below_one_prove_nothing():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = Contractive(rate=0.995, gated=True, layers=4, expand=0.05)
        cell = ContractiveCell(16, settings).bfloat16().eval()
    assert cell.proven_rate() >= 1
    start = torch.zeros(16, dtype=torch.bfloat16)
    for injection in (0.0, 2.0, math.inf):
        assert cell.proven_bound(injection, start) == math.inf
    for reach in (2.0, None):
        proof = certify(cell, reach, start, ("inputs are clipped",))
        assert (proof.rate, proof.state_bound, proof.slack) == (None, None, None)
        assert "contraction rate   nothing proven" in str(proof)
    for rate in (cell.proven_rate(), 1.0, math.nan):
        with pytest.raises(ConfigError, match="needs a proven rate below 1, got"):
            Certified().proven(rate, 1.0, 3)
    # The same weights in float64 prove what they were made for.
    assert cell.double().proven_rate() == pytest.approx(0.995)


def test_shares_that_round_to_more_than_the_rate_are_counted():
    cell = contractive(gated=True, rate=1 - 1e-8).float()
    assert cell.proven_rate() >= 1


def test_no_point_of_a_box_leaves_its_bound():
    weight, bias, limits = randn(4, 3), randn(4, seed=1), torch.tensor([1.0, 10.0, 0.5])
    bound = box_bound(weight, bias, limits)
    corners = torch.cartesian_prod(*(torch.tensor([-1.0, 1.0]) * each for each in limits)).double()
    assert float((corners @ weight.T + bias).norm(dim=1).max()) <= bound


def test_training_reaches_every_weight():
    cell = contractive(gated=True).train()
    refine(cell, randn(3, 1, 6), randn(3, 1, 6, seed=1)).square().sum().backward()
    for name, p in cell.named_parameters():
        assert p.grad is not None, name
        assert bool((p.grad != 0).any()), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.0}, "rate must be between 0 and 1, got 1.0"),
        ({"rate": 0.0}, "rate must be between 0 and 1, got 0.0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"expand": 0.0}, "expand must be above 0, got 0.0"),
    ],
)
def test_settings_without_a_contraction_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Contractive(**settings)


def test_the_normalisation_that_bounds_the_bounded_cell_is_bounded():
    x = torch.cat([randn(50, 6, scale=s) for s in (1e-9, 1.0, 1e9)])
    assert float(rms_norm(x).norm(dim=1).max()) <= math.sqrt(6) * (1 + 1e-12)
