"""A world model with one latent for each ball, which sees only its neighbours: news travels.

What happens at one end of the chain reaches the other through all balls between, one iteration or
one block for each. The stack of blocks is given the same locality, so that it differs from the loop
by its weights alone.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.block import init_linear, rms_norm
from loopwm.core.cell import Conditioning, Weights
from loopwm.core.loop import LoopedCore
from loopwm.data.meta import DatasetMeta
from loopwm.data.normalise import Statistics
from loopwm.world.config import WorldConfig
from loopwm.world.dynamics import Advance, Carry, Run
from loopwm.world.head import linear_head
from loopwm.world.model import WorldModel

_MAX_RETENTION, _RETENTION = 0.98, 0.4472


class NeighbourCell(nn.Module):
    """Refine each ball's latent from itself and the two beside it: `h+ = abar*h + B e + R`.

    R is the gated perceptron of `loopwm.core.cell.BoundedCell`, shown three latents, normalised, in
    place of one; beyond the ends of the chain are zeros. As there, that bounds the state.

    Args:
        width: Width D of each latent.
        expand: Width of the gated layer over it.
    """

    num_conditions = 2

    def __init__(self, width: int, expand: int = 1) -> None:
        super().__init__()
        hidden = expand * width
        self._min_rate = -math.log(_MAX_RETENTION)
        rate = -math.log(_RETENTION) - self._min_rate
        self.log_rate = nn.Parameter(torch.full((width,), math.log(rate)))
        self.from_state = nn.Linear(3 * width, 2 * hidden, bias=False)
        self.from_injection = nn.Linear(width, 2 * hidden)
        self.inject = nn.Linear(width, width, bias=False)
        self.leave = nn.Linear(hidden, width, bias=False)
        init_linear(self.from_state.weight)
        init_linear(self.from_injection.weight)
        nn.init.zeros_(self.from_injection.bias)
        nn.init.eye_(self.inject.weight)
        self.inject.weight.data.mul_(1 - _RETENTION)
        init_linear(self.leave.weight, gain=1 - _RETENTION)

    def condition(self, e: Float[Tensor, "B L D"]) -> Conditioning:
        """Return `B e` and the part of the gates' input that depends on e."""
        return self.inject(e), self.from_injection(e)

    def constrain(self) -> Weights:
        """Return the retention abar of each channel."""
        return (torch.exp(-(self.log_rate.exp() + self._min_rate)),)

    def forward(
        self,
        h: Float[Tensor, "B L D"],
        conditioning: Conditioning,
        weights: Weights | None = None,
    ) -> Tensor:
        """Refine h once under the conditioning of `condition`."""
        (retention,) = weights or self.constrain()
        injected, bias = conditioning
        padded = F.pad(rms_norm(h), (0, 0, 1, 1))
        around = torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=-1)
        gate, value = (self.from_state(around) + bias).chunk(2, dim=-1)
        return retention * h + injected + self.leave(F.silu(gate) * value)


class BallDynamics(nn.Module):
    """Refine a latent for each ball by a loop, or by a stack of cells with weights of their own.

    Nothing is carried from step to step, and there is no action: a chain's state is all there is.

    Args:
        balls: Number of balls n; the observation is their positions, then their velocities.
        width: Width D of each latent.
        blocks: Number of cells in the stack; 0 for the loop.
        expand: Width of a cell's gated layer over that of a latent.
    """

    carries = False

    def __init__(self, balls: int, width: int, blocks: int = 0, expand: int = 1) -> None:
        super().__init__()
        self.balls, self.width = balls, balls * width
        # Observations are standardised ball by ball, so a ball must know its place in the line.
        place = torch.linspace(-1, 1, balls)
        self.register_buffer("place", torch.stack([place, place.abs()], dim=1), persistent=False)
        self.enter = nn.Linear(4, width)
        init_linear(self.enter.weight)
        nn.init.zeros_(self.enter.bias)
        self.origin = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(NeighbourCell(width, expand) for _ in range(blocks))
        if not blocks:
            self.core = LoopedCore(NeighbourCell(width, expand))

    def initial(self, batch: int) -> Carry:
        """Return nothing: nothing is carried."""
        return ()

    def forward(self, carry: Carry, x: Float[Tensor, "B X"], run: Run) -> Advance:
        """Refine the latents of all balls; the feature holds them one after the other."""
        state = x[:, : 2 * self.balls].unflatten(1, (2, self.balls)).transpose(1, 2)
        place = self.get_buffer("place").expand(len(x), -1, -1)
        e = self.enter(torch.cat([state, place], dim=2))
        h = self.origin.expand_as(e)
        if len(self.blocks):
            for cell in self.blocks:
                assert isinstance(cell, NeighbourCell)
                h = cell(h, cell.condition(e))
            return Advance.single((), h.flatten(1), len(self.blocks))
        options = {"stop": run.stop, "readout": run.readout, "tap": run.tap}
        out = self.core((h,), e, run.depth, **options)
        return Advance(
            carry=(),
            feature=out.state[0].flatten(1),
            n_iters=out.n_iters,
            residual=out.residual,
            settled=out.residual < run.settled_tol if run.stop is None else out.settled,
            tapped=None if out.tapped is None else out.tapped.flatten(1),
        )


class PerBall(nn.Module):
    """Decode each ball's change of position and velocity from its own latent.

    Args:
        width: Width of the feature, all balls together.
        outputs: Dimensions of the observation, two for each ball.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.balls = outputs // 2
        self.decode = linear_head(width // self.balls, 2)

    def forward(self, feature: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        """Return all positions' changes, then all velocities'."""
        change = self.decode(feature.unflatten(-1, (self.balls, -1)))
        return change.transpose(-1, -2).flatten(-2)


def build_local(
    config: WorldConfig,
    blocks: int,
    meta: DatasetMeta,
    statistics: Statistics,
    seed: int,
    expand: int = 1,
) -> WorldModel:
    """Build a world model of a chain with a latent for each ball, with random weights.

    Args:
        config: Configuration; its width is that of one ball's latent.
        blocks: Number of cells with weights of their own; 0 for a loop.
        meta: Description of the data.
        statistics: Statistics of the data.
        seed: Seed of the weights; torch's global generator is left as it was.
        expand: Width of a cell's gated layer over that of a latent.
    """
    balls = len(statistics.obs_mean) // 2
    # Nothing is learned of rewards and ends here: the smallest heads there are.
    heads = {"change": PerBall, "reward": nn.Linear, "termination": nn.Linear}
    fields = {name: getattr(config, name) for name in ("depth", "clip", "margin", "objective")}
    wide = WorldConfig(width=balls * config.width, carry=False, heads=heads, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dynamics = BallDynamics(balls, config.width, blocks, expand)
        return WorldModel(wide, meta, statistics, dynamics)
