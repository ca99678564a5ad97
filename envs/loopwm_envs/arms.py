"""The models of ball chains that are compared: a loop, and stacks of blocks of chosen sizes."""

from dataclasses import dataclass

from loopwm.core.count import parameters
from loopwm.core.depth import Fixed, Uniform
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.world.build import build
from loopwm.world.config import Untied, WorldConfig
from loopwm.world.model import WorldModel
from loopwm.world.terms import Objective
from loopwm_envs.neighbours import NeighbourCell, build_local

OBJECTIVE = Objective(reward=0.0, termination=0.0)
WIDTH, ITERATIONS = 32, Uniform(3, 12)


@dataclass(frozen=True)
class Arm:
    """Name one model.

    Attributes:
        label: What tables call it.
        blocks: Cells with weights of their own; 0 for a loop.
        share: Parameters of its cells over those of the loop's one; 0 for as many as the loop's
            cell for each block.
        local: Whether each ball has a latent of its own; without it, one holds the whole chain.
        measured: Iterations, or blocks, at which it is measured.
    """

    label: str
    blocks: int = 0
    share: int = 0
    local: bool = True
    measured: tuple[int, ...] = (8, 12)

    @property
    def width(self) -> int:
        """Width of each latent."""
        if not self.local:
            return 64
        return width_of(self.share / self.blocks) if self.share else WIDTH


ARMS = {
    "looped": Arm("looped"),
    "untied-8-equal": Arm("8 untied blocks, equal parameters", 8, 1, measured=(8,)),
    "untied-8-eight": Arm("8 untied blocks, 8 times the parameters", 8, 8, measured=(8,)),
    "untied-12-equal": Arm("12 untied blocks, equal parameters", 12, 1, measured=(12,)),
    "untied-12-eight": Arm("12 untied blocks, 8 times the parameters", 12, 8, measured=(12,)),
    "single": Arm("looped, one latent for all balls", local=False),
    "single-untied": Arm("8 untied blocks, one latent", 8, local=False, measured=(8,)),
}


def width_of(share: float) -> int:
    """Return the width at which a cell has nearest to `share` times the loop's parameters."""
    wanted = share * parameters(NeighbourCell(WIDTH))
    return min(
        range(1, 2 * WIDTH), key=lambda width: abs(parameters(NeighbourCell(width)) - wanted)
    )


def make_model(arm: Arm, data: RolloutDataset, seed: int) -> WorldModel:
    """Build an arm's model with random weights."""
    statistics = Statistics.of(data)
    depth = Fixed(1) if arm.blocks else ITERATIONS
    config = WorldConfig(
        width=arm.width, depth=depth, carry=False, margin=None, objective=OBJECTIVE
    )
    if arm.local:
        return build_local(config, arm.blocks, data.meta, statistics, seed)
    untied = Untied(arm.blocks or 1, arm.width, carry=False, margin=None, objective=OBJECTIVE)
    return build(untied if arm.blocks else config, data.meta, statistics, seed)
