"""The looped dynamics: a prelude makes the injection, the core refines the latent state."""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from loopwm.core.block import init_linear, rms_norm
from loopwm.core.depth import Flow
from loopwm.core.loop import LoopedCore
from loopwm.core.make import make_cell
from loopwm.core.rows import LoopOutput
from loopwm.core.stack import per_row
from loopwm.world.config import WorldConfig
from loopwm.world.dynamics import Advance, Carry, Run


class LoopedDynamics(nn.Module):
    """Refine one latent token by a looped core (arXiv 2606.18208, eq. 3-5).

    The injection is linear in inputs that are clipped and in the carried state normalised, so it
    is bounded; the loop starts from the carried state, at first from a learned vector.

    Args:
        inputs: Width X of the input.
        config: Width, cell, and whether the state is carried.
    """

    def __init__(self, inputs: int, config: WorldConfig) -> None:
        super().__init__()
        self.width = config.width
        self.carries = config.carry
        self.warm = config.warm
        self.reinject = config.reinject
        self.grad = config.grad
        self.enter = nn.Linear(inputs, config.width)
        init_linear(self.enter.weight)
        nn.init.zeros_(self.enter.bias)
        self.recall = nn.Linear(config.width, config.width, bias=False) if config.carry else None
        if self.recall is not None:
            init_linear(self.recall.weight, gain=0.1)
        self.origin = nn.Parameter(torch.zeros(config.width))
        flow = config.depth if isinstance(config.depth, Flow) else None
        self.core = LoopedCore(make_cell(config.width, config.cell), flow=flow)

    def initial(self, batch: int) -> Carry:
        """Return the learned starting state for `batch` rows, if the state is carried."""
        return (self._origin(batch),) if self.carries else ()

    def _origin(self, batch: int) -> Float[Tensor, "B 1 D"]:
        return per_row(self.origin, batch).unsqueeze(1)

    def injection(self, carry: Carry, x: Float[Tensor, "B X"]) -> Float[Tensor, "B 1 D"]:
        """Return what conditions the refinement of this step."""
        e = self.enter(x).unsqueeze(1)
        return e if self.recall is None else e + self.recall(rms_norm(carry[0]))

    def forward(self, carry: Carry, x: Float[Tensor, "B X"], run: Run) -> Advance:
        """Refine the carried state under this step's injection."""
        h = carry[0] if self.carries and self.warm else self._origin(x.shape[0])
        # Asked before the injection is taken in, after which no row is where it began.
        fresh = None if run.first is None else (h == self._origin(len(h))).flatten(1).all(1)
        e = self.injection(carry, x)
        if not self.reinject:
            h, e = self.core.refine(h, e), torch.zeros_like(e)
        out = self._refined(h, e, run, fresh)
        settled = out.settled if run.stop is not None else out.residual < run.settled_tol
        return Advance(
            carry=out.state if self.carries else (),
            feature=out.state[0].flatten(1),
            n_iters=out.n_iters,
            residual=out.residual,
            settled=settled,
            tapped=None if out.tapped is None else out.tapped.flatten(1),
            drift=self._drift(out.state[0], e) if run.drift else None,
        )

    def _refined(
        self,
        h: Float[Tensor, "B 1 D"],
        e: Float[Tensor, "B 1 D"],
        run: Run,
        fresh: Bool[Tensor, " B"] | None,
    ) -> LoopOutput:
        """Run the core on rows of which some may be fresh, from the learned start."""
        options = {"stop": run.stop, "readout": run.readout, "grad": self.grad, "tap": run.tap}
        core = partial(self.core, (h,), e, **options)
        if fresh is None or run.first is None or not fresh.any():
            return core(run.depth)
        if fresh.all():
            return core(run.first)
        if self.core.members == 1:
            return core(torch.where(fresh, run.first, run.depth))
        # Rows of stacked members leave the batch together: all run to both depths, and each
        # keeps what it had at its own.
        return _chosen(fresh, core(run.first), core(run.depth))

    def _drift(self, h: Float[Tensor, "B 1 D"], e: Float[Tensor, "B 1 D"]) -> Float[Tensor, " B"]:
        moved = (self.core.refine(h, e) - h).flatten(1).square().sum(1)
        return moved / h.flatten(1).square().sum(1).clamp_min(1e-12)


def _chosen(first: Bool[Tensor, " B"], one: LoopOutput, two: LoopOutput) -> LoopOutput:
    """Return of each row what `one` says where it is first, else what `two` says."""
    wide = first[:, None, None]
    pairs = zip(one.state, two.state, strict=True)
    return LoopOutput(
        state=tuple(torch.where(wide, a, b) for a, b in pairs),
        n_iters=torch.where(first, one.n_iters, two.n_iters),
        residual=torch.where(first, one.residual, two.residual),
        settled=torch.where(first, one.settled, two.settled),
    )
