"""How gradients flow through the loop. A mode receives one iteration as a function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from loopwm.core.settings import settle
from loopwm.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

State = tuple["Tensor", ...]
Iterate = Callable[..., State]


@runtime_checkable
class GradientMode(Protocol):
    """Run one iteration so that its backward pass is the one wanted."""

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration.

        Args:
            iterate: One iteration: tensors of the state in, the refined state out.
            z: Latent states, each [B, L, D].
            remaining: Iterations left including this one; an int, or int64 [B] per row.

        Returns:
            The refined states.
        """
        ...


@runtime_checkable
class FixedPointMode(GradientMode, Protocol):
    """Run the loop without gradient, and give the states that it settles at a gradient afterwards.

    This makes sense only where the loop settles. `n_iters`, `residual` and `settled` speak of the
    loop; where no gradient is wanted, the loop is all that is run.
    """

    def finish(self, iterate: Iterate, fixed: State, z: State) -> State:
        """Return the settled states with a gradient to what conditions them and to the weights.

        Args:
            iterate: One iteration: from the conditioning and the states to the states.
            fixed: What conditions every iteration, rows first.
            z: Latent states after the loop, without gradient, each [B, L, D].
        """
        ...


@dataclass(frozen=True)
class Full:
    """Backpropagate through every iteration, keeping all activations."""

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration under plain automatic differentiation."""
        return iterate(*z)


@dataclass(frozen=True)
class Checkpointed:
    """Backpropagate through every iteration, recomputing it in the backward pass.

    The gradients equal those of `Full`; the activations of one iteration are alive at a time.
    """

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration under activation checkpointing."""
        import torch
        from torch.utils.checkpoint import checkpoint

        if not torch.is_grad_enabled():
            return iterate(*z)
        # torch declares no type for what it returns: what the function does.
        return cast(State, checkpoint(iterate, *z, use_reentrant=False, preserve_rng_state=False))


@dataclass(frozen=True)
class LastK:
    """Backpropagate through the last k iterations of each row; the earlier ones are constants.

    Truncated backpropagation as in arXiv 2606.18208 and 2604.12946; it is biased. Under a stop
    rule, where each iteration may be the last one of a row, all carry gradient. A state that is
    tapped before the last k is refined once more, and its gradient is that of this one iteration.

    Args:
        k: Number of iterations that carry gradient, at least 1.
    """

    k: int = 4

    def __post_init__(self) -> None:
        settle(self)
        if self.k < 1:
            raise ConfigError(f"LastK.k must be at least 1, got {self.k}")

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration, cut off from gradient where more than k are left."""
        import torch

        if isinstance(remaining, int):
            if remaining <= self.k:
                return iterate(*z)
            with torch.no_grad():
                return iterate(*z)
        early = remaining > self.k
        if bool(early.all()):
            with torch.no_grad():
                return iterate(*z)
        early = early[:, None, None]
        return tuple(torch.where(early, s.detach(), s) for s in iterate(*z))


@dataclass(frozen=True)
class Phantom:
    """Run to the depth without gradient, then k further iterations with it.

    The unrolled phantom gradient (arXiv 2111.05177), from the last state taken for a constant, by
    `h <- damping * F(h, e) + (1 - damping) * h`. Memory does not grow with the depth. The returned
    state is the one after the further iterations.

    Only for loops that settle. At the fixed point of a contraction the adjoint, which the gradients
    of injection and weights are linear in, has a relative error of at most `rate^k`, with damping
    `(1 - damping * (1 - rate))^k`. The start has no gradient. A tapped state has not settled: it is
    refined once more, and its gradient is that of this one iteration.

    Args:
        k: Number of further iterations, at least 1.
        damping: Weight of the refined state in each, in (0, 1]; 1 is the iteration as it is.
    """

    k: int = 4
    damping: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        if self.k < 1:
            raise ConfigError(f"Phantom.k must be at least 1, got {self.k}")
        if not 0 < self.damping <= 1:
            raise ConfigError(f"Phantom.damping must be above 0 and at most 1, got {self.damping}")

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration without gradient."""
        return _constant(iterate, z)

    def finish(self, iterate: Iterate, fixed: State, z: State) -> State:
        """Apply the further iterations."""
        kept = 1 - self.damping
        for _ in range(self.k):
            refined = iterate(fixed, *z)
            z = tuple(self.damping * r + kept * s for r, s in zip(refined, z, strict=True))
        return z


@dataclass(frozen=True)
class Implicit:
    """Run to the depth without gradient; differentiate the fixed point that it stands for.

    By the implicit function theorem (arXiv 1909.01377): the backward pass solves `g = v + g J` by
    iteration with the Jacobian J of one iteration at each row's last state, and hands g to the
    gradient of that one iteration. Memory does not grow with the depth; values are those of `Full`.

    Only for loops that settle: elsewhere it is the gradient of nothing that was computed. Of a
    contraction the adjoint has a relative error of about `tol * rate / (1 - rate)`, and at most
    `rate^(max_iters + 1)` when it stops at `max_iters`, beside what the loop itself left undone.
    The start has no gradient, because a fixed point does not depend on it. A tapped state has not
    settled: it is refined once more, and its gradient is that of this one iteration. First
    derivatives only.

    Args:
        tol: Stop the backward iteration when each row's relative change is at most this, above 0.
        max_iters: Most iterations of the backward pass, at least 1.
    """

    tol: float = 1e-3
    max_iters: int = 30

    def __post_init__(self) -> None:
        settle(self)
        if not self.tol > 0:
            raise ConfigError(f"Implicit.tol must be above 0, got {self.tol}")
        if self.max_iters < 1:
            raise ConfigError(f"Implicit.max_iters must be at least 1, got {self.max_iters}")

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration without gradient."""
        return _constant(iterate, z)

    def finish(self, iterate: Iterate, fixed: State, z: State) -> State:
        """Return the states as they are, with the gradient of the fixed point."""
        from loopwm.core.implicit import settled_state

        return settled_state(iterate, fixed, z, self.tol, self.max_iters)


def _constant(iterate: Iterate, z: State) -> State:
    import torch

    with torch.no_grad():
        return iterate(*z)
