"""Reach the fixed point of a loop in fewer iterations, by extrapolating from the last few."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopwm.core.cell import Conditioning
from loopwm.core.program import State
from loopwm.core.rows import Iterate
from loopwm.errors import ConfigError

# Differences below this length are rounding; they must not be divided by.
_TINY = 1e-20


@dataclass(frozen=True)
class Anderson:
    """Extrapolate each row from its last iterations (Anderson 1965; arXiv 1909.01377, 2.1).

    With `f = F(x) - x`, the next state is `F(x) - sum_i gamma_i dF_i`, where gamma makes
    `f - sum_i gamma_i df_i` least over the last `memory` differences, ridge added. Where the
    residual `||f||` is not below that of the state extrapolated from, the row forgets its
    differences and goes on from that state's plain iterate, so that of a contraction the residual
    of accepted states never grows. Rows know nothing of each other.

    At inference alone, for programs of one latent: `model.core.solver = Anderson()`. Every
    evaluation of the cell counts as an iteration, also one that is thrown away.

    Args:
        memory: Number of differences kept, at least 1.
        ridge: Penalty relative to the mean squared length of the differences, above 0; at least a
            few roundings of the type that is computed in are taken.
    """

    memory: int = 3
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If one is out of range.
        """
        if self.memory < 1:
            raise ConfigError(f"Anderson.memory must be at least 1, got {self.memory}")
        if not self.ridge > 0:
            raise ConfigError(f"Anderson.ridge must be above 0, got {self.ridge}")

    def begin(self, z: State) -> State:
        """Return the states that `step` goes on from.

        Args:
            z: One latent [B, L, D].

        Returns:
            The latent, and for each row: differences of residuals and of iterates [B, m, N], the
            latest accepted residual and iterate [B, N], and whether there is one [B, 1].
        """
        flat = z[0].flatten(1)
        history = flat.new_zeros(len(flat), self.memory, flat.shape[1])
        return (z[0], history, history, torch.zeros_like(flat), flat, flat.new_zeros(len(flat), 1))

    def step(self, iterate: Iterate, fixed: Conditioning, *state: Tensor) -> State:
        """Evaluate the cell once, and extrapolate.

        Args:
            iterate: One iteration: from the conditioning and the latent to the latent.
            fixed: What conditions every iteration, rows first.
            state: What `begin` or the previous step returned.
        """
        x, residuals, iterates, f_before, g_before, begun = state
        g = iterate(fixed, x)[0].flatten(1)
        f = g - x.flatten(1)
        worse = (begun > 0) & (f.norm(dim=1) >= f_before.norm(dim=1))[:, None]
        # A first evaluation has no difference, and one that made things worse is thrown away.
        fresh = (begun > 0) & ~worse
        residuals = _pushed(residuals, f - f_before, fresh)
        iterates = _pushed(iterates, g - g_before, fresh)
        residuals, iterates = (torch.where(worse[..., None], 0, h) for h in (residuals, iterates))
        f, g = (torch.where(worse, old, new) for old, new in ((f_before, f), (g_before, g)))
        gamma = self._weights(residuals, f)
        following = g - (gamma[:, None] @ iterates).squeeze(1)
        return (following.view_as(x), residuals, iterates, f, g, torch.ones_like(begun))

    def _weights(
        self, residuals: Float[Tensor, "B m N"], f: Float[Tensor, "B N"]
    ) -> Float[Tensor, "B m"]:
        gram = residuals @ residuals.mT
        size = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)
        eye = torch.eye(self.memory, dtype=f.dtype, device=f.device)
        # Below the resolution of the type a ridge leaves the matrix singular.
        ridge = max(self.ridge, 8 * torch.finfo(f.dtype).eps)
        gram = gram / size[:, None, None] + ridge * eye
        wanted = (residuals @ f[..., None]).squeeze(2) / size[:, None]
        return torch.linalg.solve(gram, wanted)


def _pushed(
    history: Float[Tensor, "B m N"], latest: Float[Tensor, "B N"], fresh: Bool[Tensor, "B 1"]
) -> Float[Tensor, "B m N"]:
    """Return the history with the latest difference in place of the oldest, where it is fresh."""
    moved = torch.cat([history[:, 1:], latest[:, None]], dim=1)
    return torch.where(fresh[..., None], moved, history)
