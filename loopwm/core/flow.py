"""Continuous depth: the loop as a differential equation, `dh/dtau = F(h, e) - h`."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopwm.core.cell import Conditioning
from loopwm.core.depth import Flow
from loopwm.core.grad import Full
from loopwm.core.program import State
from loopwm.core.rows import Iterate, LoopOutput, relative_change, run_all
from loopwm.errors import NumericalError


def run_flow(
    iterate: Iterate,
    z: State,
    fixed: Conditioning,
    tau: int | Int[Tensor, " B"],
    tap: Int[Tensor, " B"] | None,
    chosen: int,
    flow: Flow,
    parameters: Iterable[nn.Parameter],
) -> LoopOutput:
    """Run every row for a time of its own, all with the steps that the batch needs.

    Args:
        iterate: One iteration F: from the conditioning and the states to the states.
        z: Initial states, rows first.
        fixed: What conditions F all along, rows first.
        tau: How long to run, all rows or each; one iteration is a unit of time.
        tap: Time of each row whose chosen state is returned too, at most the row's `tau`.
        chosen: Index of the state that is tapped and that the residual is measured on.
        flow: Solver and tolerances.
        parameters: What F depends on beside `fixed`, for the adjoint.

    Returns:
        The states at the end; `n_iters` counts the solver's evaluations of F, without the one that
        the residual takes.

    Raises:
        NumericalError: If the solver cannot go on: a state is not finite, or the tolerance asks for
            too many steps.
    """
    if not len(z[0]):
        return run_all(iterate, z, fixed, 1, Full(), chosen)
    evaluations = 0
    # The adjoint gives gradients to states and parameters alone: what is fixed becomes a state too.
    held = fixed if flow.adjoint else ()

    def velocity(_: Tensor, states: State) -> State:
        nonlocal evaluations
        evaluations += 1
        now = states[: len(z)]
        refined = iterate(states[len(z) :] if held else fixed, *now)
        moved = (after - before for after, before in zip(refined, now, strict=True))
        return (*moved, *(torch.zeros_like(part) for part in held))

    last = tau if isinstance(tau, int) else int(tau.max())
    between = 1 if tap is not None or not isinstance(tau, int) else last
    times = torch.arange(0, last + 1, between).to(z[0])
    path = _solve(velocity, (*z, *held), times, flow, parameters)[: len(z)]
    rows = torch.arange(len(z[0]), device=z[0].device)
    state = tuple(part[-1] if isinstance(tau, int) else part[tau, rows] for part in path)
    with torch.no_grad():
        residual = relative_change(state[chosen], iterate(fixed, *state)[chosen])
    return LoopOutput(
        state=state,
        n_iters=torch.full_like(rows, evaluations),
        residual=residual,
        settled=torch.zeros_like(rows, dtype=torch.bool),
        tapped=None if tap is None else path[chosen][tap, rows],
    )


def _solve(
    velocity: Callable[[Tensor, State], State],
    states: State,
    times: Tensor,
    flow: Flow,
    parameters: Iterable[nn.Parameter],
) -> State:
    """Return each state at each of the times, with a leading axis for them."""
    from torchdiffeq import odeint, odeint_adjoint

    settings: dict[str, Any] = {"rtol": flow.rtol, "atol": flow.atol}
    settings |= {"method": flow.method, "options": flow.options}
    try:
        if flow.adjoint:
            learned = tuple(p for p in parameters if p.requires_grad)
            path = odeint_adjoint(velocity, states, times, adjoint_params=learned, **settings)
        else:
            path = odeint(velocity, states, times, **settings)
    except AssertionError as error:
        raise NumericalError(
            f"{flow.method} cannot solve the flow: {error}. The states are not finite, or "
            f"rtol={flow.rtol} and atol={flow.atol} take more than {flow.max_steps} steps, for "
            f"instance because they are below what {states[0].dtype} resolves"
        ) from error
    # torchdiffeq declares no types: a tuple goes in, a tuple comes out.
    return cast(State, path)
