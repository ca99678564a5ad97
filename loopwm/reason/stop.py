"""When a reasoner that is asked stops thinking; each puzzle is judged by itself."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from loopwm.core.settings import settle
from loopwm.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Thought:
    """Hold what a step has come to.

    Attributes:
        state: Latents, each [B, L, D].
        logits: Scores of the answer's tokens [B, S, V].
        q_halt: Logit that the answer is right [B].
    """

    state: "tuple[Tensor, ...]"
    logits: "Tensor"
    q_halt: "Tensor"


@runtime_checkable
class Stop(Protocol):
    """Judge after each step which puzzles are done.

    Attributes:
        patience: Number of consecutive steps for which `met` must hold.
    """

    @property
    def patience(self) -> int:
        """Return how many steps in a row must pass the test."""
        ...

    def met(self, now: Thought, before: Thought | None) -> "Tensor":
        """Return a bool [B]: whether a puzzle passes the test; `before` is None after step one."""
        ...


@dataclass(frozen=True)
class Sure:
    """Stop when the model takes its answer for right.

    Args:
        probability: What the model must give its answer, in (0, 1).
        patience: Number of consecutive steps for which it must, at least 1.
    """

    probability: float = 0.5
    patience: int = 1

    def __post_init__(self) -> None:
        settle(self)
        if not 0 < self.probability < 1:
            raise ConfigError(f"Sure.probability must be in (0, 1), got {self.probability}")
        _check_patience("Sure", self.patience)

    def met(self, now: Thought, before: Thought | None) -> "Tensor":
        """Return whether the probability is exceeded."""
        return now.q_halt > math.log(self.probability / (1 - self.probability))


@dataclass(frozen=True)
class Unchanged:
    """Stop when the answer stays the same.

    Args:
        patience: Number of consecutive steps that leave every token as it was, at least 1.
    """

    patience: int = 2

    def __post_init__(self) -> None:
        settle(self)
        _check_patience("Unchanged", self.patience)

    def met(self, now: Thought, before: Thought | None) -> "Tensor":
        """Return whether every token of the answer is the one of the step before."""
        answer = now.logits.argmax(-1)
        if before is None:
            return answer.new_zeros(len(answer)).bool()
        return (answer == before.logits.argmax(-1)).all(1)


@dataclass(frozen=True)
class Settled:
    """Stop when the answer's latent comes to rest.

    Args:
        tol: Largest change in a step relative to its norm, above 0.
        patience: Number of consecutive steps below `tol`, at least 1.
    """

    tol: float = 0.02
    patience: int = 1

    def __post_init__(self) -> None:
        settle(self)
        if not self.tol > 0:
            raise ConfigError(f"Settled.tol must be above 0, got {self.tol}")
        _check_patience("Settled", self.patience)

    def met(self, now: Thought, before: Thought | None) -> "Tensor":
        """Return whether the relative change is below `tol`."""
        latent = now.state[0].flatten(1)
        if before is None:
            return latent.new_zeros(len(latent)).bool()
        change = (latent - before.state[0].flatten(1)).norm(dim=1)
        return change < self.tol * latent.norm(dim=1)


def _check_patience(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}.patience must be at least 1, got {value}")
