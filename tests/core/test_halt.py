"""A stop rule ends each row as it would end alone, whatever the neighbours, and saves its work."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopwm.core.config import Contractive
from loopwm.core.contractive import ContractiveCell
from loopwm.core.grad import Full, LastK
from loopwm.core.halt import OutputDelta, Residual, StopRule
from loopwm.core.loop import LoopedCore
from loopwm.core.program import LOOPWM, trm
from loopwm.errors import ConfigError


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DECODER = randn(6, 3, seed=40)


def readout(h: Tensor) -> Tensor:
    return h.mean(1) @ DECODER


RULES: dict[str, Any] = {
    "output": OutputDelta(tol=0.02),
    "output, patient": OutputDelta(tol=0.05, patience=3),
    "residual": Residual(tol=0.02),
    "residual, patient": Residual(tol=0.05, patience=2),
}


def calm_of(rule: StopRule, plain_loop: Any) -> Any:
    if isinstance(rule, OutputDelta):
        return plain_loop.output_calm(readout, rule.tol)
    assert isinstance(rule, Residual)
    return plain_loop.residual_calm(rule.tol)


def starts(latents: int, tokens: int, rows: int = 12) -> tuple[tuple[Tensor, ...], Tensor]:
    # Rows of different size settle after different counts.
    size = torch.logspace(-2, 1, rows, dtype=torch.float64)[:, None, None]
    z = tuple(size * randn(rows, tokens, 6, seed=i) for i in range(latents))
    return z, randn(rows, tokens, 6, seed=9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["bounded", "renewal", "attention", "trm"])
@pytest.mark.parametrize("limit", ["one", "per row"])
def test_each_row_stops_as_if_alone(bounded, post_norm, plain_loop, rule, kind, limit):
    cell, program, cycle, tokens = {
        "bounded": (bounded(), LOOPWM, plain_loop.one_latent, 1),
        "renewal": (bounded(gain=0.8), LOOPWM, plain_loop.one_latent, 1),
        "attention": (post_norm(), LOOPWM, plain_loop.one_latent, 2),
        "trm": (post_norm(seed=1), trm(2), plain_loop.trm(2), 2),
    }[kind]
    core = LoopedCore(cell, program).requires_grad_(False).eval()
    z, e = starts(program.num_states, tokens)
    most = [20] * 12 if limit == "one" else [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20]
    stop = RULES[rule]
    depth = 20 if limit == "one" else torch.tensor(most)
    out = core(z, e, depth, stop=stop, readout=readout)
    for i in range(12):
        alone = plain_loop.halt_row(
            core.cell,
            cycle,
            tuple(s[i : i + 1] for s in z),
            e[i : i + 1],
            most[i],
            calm_of(stop, plain_loop),
            stop.patience,
        )
        assert int(out.n_iters[i]) == alone.n_iters
        assert bool(out.settled[i]) == alone.settled
        assert float(out.residual[i]) == pytest.approx(alone.residual, rel=1e-7, abs=1e-13)
        for ours, theirs in zip(out.state, alone.state, strict=True):
            # Sixty refinements can amplify the rounding of float64 a thousandfold and more.
            torch.testing.assert_close(ours[i : i + 1], theirs, rtol=1e-7, atol=1e-8)


def test_the_rows_of_these_tests_stop_at_different_counts_and_some_never(bounded):
    z, e = starts(1, 1)
    out = LoopedCore(bounded()).eval()(z, e, 12, stop=OutputDelta(0.02), readout=readout)
    assert len(set(out.n_iters.tolist())) >= 3
    assert out.settled.any()
    assert not out.settled.all()
    assert out.n_iters[~out.settled].tolist() == [12] * int((~out.settled).sum())


def test_neighbours_change_a_row_by_rounding_only(bounded):
    core = LoopedCore(bounded(width=32)).float().eval().requires_grad_(False)
    h, e = randn(64, 1, 32, seed=1).float(), randn(64, 1, 32, seed=2).float()
    decode = randn(32, 5, seed=3).float() / 6
    stop = OutputDelta(tol=0.01)
    together = core((h,), e, 30, stop=stop, readout=lambda h: h.flatten(1) @ decode)
    kept = torch.arange(0, 64, 3)
    fewer = core((h[kept],), e[kept], 30, stop=stop, readout=lambda h: h.flatten(1) @ decode)
    assert fewer.n_iters.tolist() == together.n_iters[kept].tolist()
    torch.testing.assert_close(fewer.state[0], together.state[0][kept], rtol=1e-5, atol=1e-5)


class Script(nn.Module):
    """A cell that counts its calls in h, and remembers the rows it was asked for."""

    num_conditions = 1

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def condition(self, e: Tensor) -> tuple[Tensor, ...]:
        return (e,)

    def constrain(self) -> tuple[Tensor, ...]:
        return ()

    def forward(
        self,
        h: Tensor,
        conditioning: tuple[Tensor, ...],
        weights: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        self.rows.append(len(h))
        return h + 1


def scripted(values: list[list[float]], stop: StopRule, most: int) -> tuple[Any, list[int]]:
    """Run rows whose decoded prediction after t iterations is `values[row][t]`."""
    table = torch.tensor(values, dtype=torch.float64)
    cell = Script()
    # The state is (iterations so far, row); only the first counts up.
    h = torch.stack([torch.zeros(len(values)), torch.arange(len(values)) * 100.0], dim=1)
    h = h[:, None].double()

    def decode(h: Tensor) -> Tensor:
        count = h[:, 0, 0].long()
        row = ((h[:, 0, 1] - count) / 100).long()
        return table[row, count][:, None]

    out = LoopedCore(cell)((h,), torch.zeros_like(h), most, stop=stop, readout=decode)
    return out, cell.rows


def test_patience_counts_consecutive_calm_iterations_and_starts_anew_after_a_change():
    out, _ = scripted(
        [
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # calm throughout
            [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0],  # one calm, a jump, then calm
            [0.0, 0.0, 0.0, 2.0, 2.0, 3.0, 3.0],  # never three times in a row
        ],
        OutputDelta(tol=0.1, patience=3),
        most=6,
    )
    assert out.n_iters.tolist() == [3, 5, 6]
    assert out.settled.tolist() == [True, True, False]


def test_a_rule_met_in_the_last_iteration_still_counts_as_settled():
    out, _ = scripted([[0.0, 1.0, 2.0, 2.0]], OutputDelta(tol=0.1), most=3)
    assert (out.n_iters.tolist(), out.settled.tolist()) == ([3], [True])


@pytest.mark.parametrize("patience", [1, 2])
def test_rows_leave_only_at_the_stages_of_a_rule(bounded, patience):
    cell = bounded().requires_grad_(False)
    z, e = starts(1, 1)
    core = LoopedCore(cell)
    rule = OutputDelta(0.2, patience=patience, stages=(4, 8))
    out = core(z, e, 12, stop=rule, readout=readout)
    states = [z[0]]
    for _ in range(12):
        states.append(core.refine(states[-1], e))
    decoded = torch.stack([readout(h) for h in states])
    calm = (decoded[1:] - decoded[:-1]).square().mean(-1).sqrt() < 0.2
    for i in range(12):
        passed, left = 0, 12
        for t in (4, 8, 12):
            passed = passed + 1 if calm[t - 1, i] else 0
            if passed >= patience:
                left = t
                break
        assert int(out.n_iters[i]) == left
        assert bool(out.settled[i]) == (passed >= patience)
        torch.testing.assert_close(out.state[0][i], states[left][i], rtol=1e-7, atol=1e-8)
    assert len(set(out.n_iters.tolist())) > 1


def test_a_rule_with_stages_decodes_before_and_at_each_stage_and_nowhere_else():
    decoded: list[float] = []

    def counted(h: Tensor) -> Tensor:
        decoded.append(h.flatten()[0].item())
        return h.flatten(1)

    e = torch.zeros(2, 1, 1)
    LoopedCore(Script())((e,), e, 9, stop=OutputDelta(1e-9, stages=(3, 4, 7)), readout=counted)
    # Stage 4 reuses what 3 decoded; the last iteration is always a stage.
    assert sorted(decoded) == [2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0]


def test_rows_that_stopped_are_computed_no_more():
    _, rows = scripted(
        [[0.0, 0.0, 9.0, 9.0], [0.0, 1.0, 1.0, 9.0], [0.0, 1.0, 2.0, 3.0]],
        OutputDelta(tol=0.1),
        most=3,
    )
    assert rows == [3, 2, 1]


def test_nothing_is_computed_after_the_last_row_has_stopped():
    _, rows = scripted([[1.0] * 9, [2.0] * 9], OutputDelta(tol=0.1), most=8)
    assert rows == [2]


def test_a_batch_without_rows_comes_back_without_rows(bounded):
    z, e = starts(1, 1)
    out = LoopedCore(bounded())((z[0][:0],), e[:0], 5, stop=Residual(0.02))
    assert out.state[0].shape == (0, 1, 6)
    assert len(out.n_iters) == len(out.settled) == len(out.residual) == 0


def test_a_row_of_nan_never_settles_and_leaves_the_others_alone(bounded):
    core = LoopedCore(bounded()).eval().requires_grad_(False)
    z, e = starts(1, 1)
    clean = core(z, e, 30, stop=Residual(0.02))
    poisoned = z[0].clone()
    poisoned[4] = torch.nan
    out = core((poisoned,), e, 30, stop=Residual(0.02))
    others = torch.arange(12) != 4
    assert int(out.n_iters[4]) == 30
    assert not out.settled[4]
    assert out.n_iters[others].tolist() == clean.n_iters[others].tolist()
    torch.testing.assert_close(out.state[0][others], clean.state[0][others])


@pytest.mark.parametrize("grad", [Full(), LastK(30), LastK(1)], ids=["full", "last", "one"])
def test_gradients_flow_through_stopped_rows_as_if_alone(bounded, plain_loop, grad):
    core = LoopedCore(bounded())
    z, e = starts(1, 1)
    (h,), e = (z[0].requires_grad_(),), e.requires_grad_()
    out = core((h,), e, 20, stop=Residual(0.05), grad=grad)
    rows = plain_loop.run_rows(core.cell, plain_loop.one_latent, (h,), e, out.n_iters.tolist())
    weight = randn(12, 1, 6, seed=3)
    leaves = [h, e, *core.parameters()]
    ours = torch.autograd.grad((out.state[0] * weight).sum(), leaves)
    theirs = torch.autograd.grad((plain_loop.cat(rows) * weight).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_output_delta_is_the_root_mean_square_over_components():
    rule = OutputDelta(tol=0.5)
    now = torch.tensor([[0.49, 0.49], [0.51, 0.51], [0.7, 0.0], [0.72, 0.0]])
    assert rule.met(now, torch.zeros(4, 2)).tolist() == [True, False, True, False]


def test_residual_is_relative_to_the_present_norm():
    rule = Residual(tol=0.1)
    now = torch.tensor([[10.0, 0.0], [10.0, 0.0], [1e-9, 0.0]])
    before = torch.tensor([[9.1, 0.0], [8.9, 0.0], [0.0, 0.0]])
    assert rule.met(now, before).tolist() == [True, False, False]


def test_what_runs_away_never_settles():
    before, now = torch.tensor([[1e22, 0.0]]), torch.tensor([[1e25, 0.0], [torch.inf, 0.0]])
    assert Residual(0.1).met(now, before).tolist() == [False, False]


def test_a_state_that_rests_at_zero_has_settled():
    cell = ContractiveCell(6, Contractive()).requires_grad_(False)
    cell.shift.bias.zero_()
    rest = torch.zeros(2, 1, 6)
    out = LoopedCore(cell)((rest,), rest, 9, stop=Residual(0.1, patience=2))
    assert not out.state[0].any()
    assert (out.n_iters.tolist(), out.settled.tolist()) == ([2, 2], [True, True])


@pytest.mark.parametrize("kind", [OutputDelta, Residual])
def test_stop_rules_refuse_impossible_settings(kind):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.tol must be above 0, got 0"):
        kind(tol=0)
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.patience must be at least 1, got 0"):
        kind(patience=0)


def test_output_delta_without_a_readout_says_what_to_do(bounded):
    h = randn(2, 1, 6)
    with pytest.raises(ConfigError, match=r"needs a readout: pass readout= .* or use Residual"):
        LoopedCore(bounded())((h,), h, 3, stop=OutputDelta())
