"""What a world model returns: one predicted step, or an imagined trajectory."""

from dataclasses import dataclass, fields
from typing import Any

from loopwm.errors import ConfigError
from loopwm.world.arrays import Array, Edge


@dataclass(frozen=True, slots=True)
class Prediction:
    """Return one predicted step, in environment units and the caller's kind of array.

    Attributes:
        next_obs: Predicted observation [B, O].
        reward: Predicted reward [B].
        terminated: Probability that the step terminates the episode [B].
        n_iters: Iterations of the loop [B], int64.
        residual: Relative change of the latent state in the last iteration [B].
        settled: Whether the refinement had settled [B]; if not, trust the prediction less.
        std: Predicted standard deviation of next_obs [B, O] of a Gaussian head, else None.
        disagreement: Standard deviation of next_obs over an ensemble's members [B, O], else None.
    """

    next_obs: Any
    reward: Any
    terminated: Any
    n_iters: Any
    residual: Any
    settled: Any
    std: Any = None
    disagreement: Any = None

    def leave(self, edge: Edge) -> "Prediction":
        """Return the prediction in the kind of array that came in."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Prediction(**{k: None if v is None else edge.leave(v) for k, v in values.items()})


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Return imagined steps, in environment units and the caller's kind of array.

    Attributes:
        obs: Imagined observations [B, H, O]; only the last with decode="last" ([B, 1, O]), None
            with decode="reward".
        reward: Predicted reward [B, H]; with decode="last" of that step alone [B, 1].
        terminated: Probability that each step terminates the episode [B, H], or [B, 1].
        n_iters: Iterations of the loop [B, H], int64.
        residual: Relative change of the latent state in the last iteration [B, H].
        settled: Whether the refinement had settled [B, H].
        std: Predicted standard deviation of each step's change [B, H, O], or None.
        disagreement: Standard deviation over an ensemble's members [B, H, O], or None.
    """

    obs: Any
    reward: Any
    terminated: Any
    n_iters: Any
    residual: Any
    settled: Any
    std: Any = None
    disagreement: Any = None

    @property
    def alive(self) -> Array:
        """Return the running probability [B, H] that no step so far has terminated.

        Raises:
            ConfigError: If the steps before the last were not decoded.
        """
        if self.terminated.shape[-1] != self.n_iters.shape[-1]:
            raise ConfigError(
                'alive needs the termination of every step, which decode="last" leaves out: '
                'imagine with decode="all" or decode="reward"'
            )
        return (1 - self.terminated).cumprod(-1)

    def leave(self, edge: Edge) -> "Trajectory":
        """Return the trajectory in the kind of array that came in."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Trajectory(**{k: None if v is None else edge.leave(v) for k, v in values.items()})
