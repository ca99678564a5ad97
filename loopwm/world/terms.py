"""What the training loss of a world model is made of. Torch-free."""

from dataclasses import dataclass

from loopwm.core.settings import settle
from loopwm.errors import ConfigError


@dataclass(frozen=True)
class Objective:
    """Weigh the parts of the training loss; the multi-step error of observations has weight 1.

    Args:
        reward: Weight of the squared error of the standardised reward.
        termination: Weight of the cross-entropy of termination.
        intermediate: Weight of the first step's observation error, decoded at a random earlier
            iteration.
        settle: Weight of the squared relative change that one iteration more would make to the
            first step's state: with it, loops learn to come to rest (arXiv 2608.18222).
        mask: Probability that an imagined step of training hides the observation from the model,
            so that it learns to go on from its latent state alone.
        context: Real observations that a training window begins with, at least 1: from 2 on, the
            model learns to gather in its latent state what one observation does not show.
        decay: How the weight of an observation error falls with the number k of steps ahead, as
            `k ** -decay`. Errors grow with k, so that with 0 the far ones rule a long horizon;
            1 makes them weigh about the same.
        robust: Makes an observation error e, in standard deviations of the one-step change, count
            `sqrt(e^2 + robust^2) - robust` in place of its square: a large one by its size, a
            small one by `e^2 / (2 robust)`, which is more beside rewards and ends the smaller
            `robust` is. Rows that cannot be foreseen then hide less of those that can. 0 leaves the
            square.
        row_clip: Longest gradient that a row sends back from an imagined step to the one before,
            over the median of the batch's rows. Rows whose future is chaotic do not drown the
            others then, which can end a training in ever larger gradients. 0 limits nothing.
    """

    reward: float = 0.1
    termination: float = 0.1
    intermediate: float = 0.3
    settle: float = 0.0
    mask: float = 0.0
    context: int = 1
    decay: float = 0.0
    robust: float = 0.0
    row_clip: float = 10.0

    def __post_init__(self) -> None:
        settle(self)
        for name in (
            "reward",
            "termination",
            "intermediate",
            "settle",
            "decay",
            "robust",
            "row_clip",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"Objective.{name} must not be negative, got {getattr(self, name)}"
                )
        if 0 < self.robust < 1e-6:
            raise ConfigError(f"Objective.robust must be 0 or at least 1e-6, got {self.robust}")
        if not 0 <= self.mask <= 1:
            raise ConfigError(f"Objective.mask must be a probability, got {self.mask}")
        if self.context < 1:
            raise ConfigError(f"Objective.context must be at least 1, got {self.context}")
