"""How agents learn: by planning in a learned model, or by a policy that practises in it."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from loopwm.core.depth import Poisson
from loopwm.data.excitation import OpenLoop, OrnsteinUhlenbeck
from loopwm.errors import ConfigError
from loopwm.train.config import AdamW, FitConfig
from loopwm.world.config import ModelConfig, WorldConfig

Method = Literal["cem", "icem", "mppi"]


def _check_counts(config: object, *names: str, least: int = 1) -> None:
    # Above the classes: their default values are made, and checked, with the classes.
    for name in names:
        value = getattr(config, name)
        if not (isinstance(value, int) and value >= least):
            raise ConfigError(
                f"{type(config).__name__}.{name} must be a whole number from {least} up, "
                f"got {value!r}"
            )


def _check_widths(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        fine = isinstance(value, tuple) and all(isinstance(w, int) and w >= 1 for w in value)
        if not fine:
            raise ConfigError(
                f"{type(config).__name__}.{name} must hold whole numbers from 1 up, such as "
                f"(64, 64), got {value!r}"
            )


@dataclass(frozen=True)
class Refit:
    """Say which model is learned while acting, and when.

    A refit goes on from the weights of the last one, with statistics that stay. What an agent
    meets changes as it learns, so from time to time the model is trained anew.

    Args:
        model: The model.
        members: Number of models, at least 1; from 2 on they are an ensemble.
        fit: How a model is trained anew; its seed is replaced, and it shows no progress.
        updates: Updates of a refit that goes on from the last weights, at least 1.
        first: Real steps of excitation before the first model, at least 1.
        every: After the first model, refits fall on multiples of this many real steps, at least 1.
        fresh: Growth of the data since the last training anew at which the next one is due,
            above 1 and finite; 2 trains anew whenever the data has doubled.
        excitation: What chooses the first actions.
    """

    model: ModelConfig = WorldConfig(width=32, depth=Poisson(4))
    members: int = 1
    # What the recipes were chosen and measured with.
    fit: FitConfig = FitConfig(updates=800, lr=3e-3, horizon=3, optimizer=AdamW(), progress=False)
    updates: int = 200
    first: int = 200
    every: int = 200
    fresh: float = 2.0
    excitation: OpenLoop = OrnsteinUhlenbeck()

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_counts(self, "members", "updates", "first", "every")
        if not (self.fresh > 1 and isfinite(self.fresh)):
            raise ConfigError(
                f"Refit.fresh must be above 1 and finite, got {self.fresh}; a large number such as "
                "1e9 never trains anew"
            )


@dataclass(frozen=True)
class Planning:
    """Say how actions are planned.

    Args:
        method: The planner; None takes iCEM for continuous actions, CEM for discrete ones.
        horizon: Steps that it looks ahead, at least 1.
        discount: Weight of a reward relative to that of the step before, in (0, 1].
        candidates: Action sequences that it imagines at a time, at least 2.
        iterations: How often it improves them, at least 1.
        depth: Iterations of the model's loop while planning; None takes the model's typical ones.
        memory: Whether the model is led through all of an episode, for one that was trained to warm
            up on observations or sees several frames, or begun at each observation.
    """

    method: Method | None = None
    horizon: int = 20
    discount: float = 0.99
    candidates: int = 64
    iterations: int = 3
    depth: int | None = None
    memory: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.method not in (None, "cem", "icem", "mppi"):
            raise ConfigError(f'method must be "cem", "icem", "mppi" or None, got {self.method!r}')
        if not 0 < self.discount <= 1:
            raise ConfigError(f"Planning.discount must lie in (0, 1], got {self.discount}")
        _check_counts(self, "horizon", "iterations")
        _check_counts(self, "candidates", least=2)
        if self.depth is not None:
            _check_counts(self, "depth")


@dataclass(frozen=True)
class TerminalValue:
    """Learn what is gained after the horizon, for `MPC` (as POLO, arXiv 1811.01848, section 3).

    At each refit a perceptron is trained anew to tell what the agent went on to gain, by the
    lambda-returns of all real steps so far (Sutton and Barto 2018, equation 12.18). They are
    bootstrapped by the perceptron itself, as it stood when they were last renewed.

    Args:
        updates: Gradient updates of each training, at least `sweeps`.
        sweeps: How often the returns are renewed in it, at least 1.
        trace: Weight lambda of later rewards against the perceptron's own word, in [0, 1]; 0 are
            temporal differences of one step, 1 are whole episodes.
        recency: How much more late steps are trained on than early ones, when the agent knew less:
            each is drawn in proportion to this power of its number, at least 0; 0 draws all alike.
        members: Perceptrons, at least 1, of which the least word counts.
        width: Widths of the hidden layers.
        lr: Step size, above 0.
        batch_size: Real steps per update, at least 1.
    """

    updates: int = 1_000
    sweeps: int = 20
    trace: float = 0.95
    recency: float = 2.0
    members: int = 4
    width: tuple[int, ...] = (64, 64)
    lr: float = 1e-3
    batch_size: int = 128

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_counts(self, "updates", "sweeps", "members", "batch_size")
        if self.updates < self.sweeps:
            raise ConfigError(
                "TerminalValue.updates must be at least sweeps, one for each, got "
                f"updates={self.updates}, sweeps={self.sweeps}"
            )
        if not 0 <= self.trace <= 1:
            raise ConfigError(f"TerminalValue.trace must lie in [0, 1], got {self.trace}")
        _check_widths(self, "width")
        if not 0 <= self.recency < float("inf"):
            raise ConfigError(f"TerminalValue.recency must be 0 or above, got {self.recency}")
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"TerminalValue.lr must be positive, got {self.lr}")


@dataclass(frozen=True)
class MPC:
    """Plan in the model at every step, act, and refit (as PETS, arXiv 1805.12114, algorithm 1).

    Args:
        refit: The model and its schedule.
        planning: How actions are planned.
        noise: Exploration while learning: standard deviation of Gaussian noise on the planned
            action as a share of half its range, or the probability of a random discrete action.
        value: How to learn what is gained after the horizon; None counts nothing there.
    """

    refit: Refit = Refit()
    planning: Planning = Planning()
    noise: float = 0.1
    value: TerminalValue | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.noise <= 1:
            raise ConfigError(f"MPC.noise must lie in [0, 1], got {self.noise}")
        if self.value is not None and self.planning.discount == 1:
            raise ConfigError(
                "MPC.value needs Planning.discount below 1, got 1: what is still to be gained "
                "would have no bound"
            )


@dataclass(frozen=True)
class SoftActorCritic:
    """Set the soft actor-critic (arXiv 1812.05905) of Stable-Baselines3 inside `Dyna`.

    Args:
        updates: Gradient updates after each real step, at least 1.
        batch_size: Transitions per update, at least 2.
        lr: Step size of all three optimisers.
        discount: Weight of the next step's value, in (0, 1).
        target_rate: Share of the critics that their targets take over at each update, in (0, 1].
        entropy_weight: First weight of the entropy, adapted from there, above 0.
        target_entropy: Entropy that the policy is held to; None takes minus the number of action
            dimensions.
        actor: Widths of the actor's hidden layers.
        critic: Widths of the critics' hidden layers.
        layer_norm: Normalise what each hidden layer of the critics passes on, which keeps them
            from running away where updates are many (DroQ, arXiv 2110.02034; here without
            learned scales).
    """

    updates: int = 10
    batch_size: int = 256
    lr: float = 1e-3
    discount: float = 0.99
    target_rate: float = 0.005
    entropy_weight: float = 0.1
    target_entropy: float | None = None
    actor: tuple[int, ...] = (64, 64)
    critic: tuple[int, ...] = (128, 128)
    layer_norm: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_counts(self, "updates")
        _check_counts(self, "batch_size", least=2)
        _check_widths(self, "actor", "critic")
        target = self.target_entropy
        if target is not None and not (isinstance(target, int | float) and isfinite(target)):
            raise ConfigError(f"target_entropy must be a number or None, got {target!r}")
        for name in ("lr", "entropy_weight"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.discount < 1:
            raise ConfigError(f"discount must lie in (0, 1), got {self.discount}")
        if not 0 < self.target_rate <= 1:
            raise ConfigError(f"target_rate must lie in (0, 1], got {self.target_rate}")


@dataclass(frozen=True)
class Dyna:
    """Let a policy practise in short imagined rollouts from real states (MBPO, arXiv 1906.08253).

    With `real_share=1` no model is trained and nothing imagined: the same policy, with as many
    updates, learns from real steps alone.

    Args:
        refit: The model and its schedule; imagined rollouts are renewed at each refit.
        learner: The policy's own learning.
        horizon: Steps of a rollout, at least 1.
        rollouts: Rollouts begun for each real step between two refits, at least 1.
        keep: Refits whose imagined steps are kept, at least 1.
        real_share: Share of real transitions in each batch, in (0, 1], rounded to whole ones.
    """

    refit: Refit = Refit(every=100)
    learner: SoftActorCritic = SoftActorCritic()
    horizon: int = 3
    rollouts: int = 50
    keep: int = 4
    real_share: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_counts(self, "horizon", "rollouts", "keep")
        if not 0 < self.real_share <= 1:
            raise ConfigError(f"Dyna.real_share must lie in (0, 1], got {self.real_share}")

    @property
    def imagines(self) -> bool:
        """Say whether anything is imagined at all."""
        return self.real_share < 1

    @property
    def real_rows(self) -> int:
        """Return the number of real transitions in each batch."""
        if not self.imagines:
            return self.learner.batch_size
        return min(max(1, round(self.real_share * self.learner.batch_size)),
                   self.learner.batch_size - 1)  # fmt: skip


Algorithm = MPC | Dyna
