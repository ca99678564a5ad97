"""Batches of real experience, and the legend of axis letters used in every shape.

B batch, K window steps, H imagined horizon, N candidates, L tokens, D latent width, O observation,
A action. `h` is a latent state, `e` the injection that conditions its refinement.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Hold windows of consecutive transitions, none of which crosses an episode.

    A window that meets the end of its episode is padded; `valid` is False on the padding.

    Attributes:
        obs: Observations in environment units; step k goes from `obs[:, k]` to `obs[:, k + 1]`.
        action: Actions in environment units, or int64 indices for a discrete action space.
        reward: Reward of each step.
        terminated: Whether the step ended in a terminal state (truncation does not count).
        valid: Whether the step is real rather than padding.
    """

    obs: Float[Tensor, "B K+1 O"]
    action: Float[Tensor, "B K A"] | Int[Tensor, "B K"]
    reward: Float[Tensor, "B K"]
    terminated: Bool[Tensor, "B K"]
    valid: Bool[Tensor, "B K"]

    def __len__(self) -> int:
        """Return the number of windows B."""
        return self.obs.shape[0]

    def steps(self, count: int) -> "SequenceBatch":
        """Return the first `count` steps of every window."""
        return SequenceBatch(
            self.obs[:, : count + 1],
            self.action[:, :count],
            self.reward[:, :count],
            self.terminated[:, :count],
            self.valid[:, :count],
        )

    def to(self, device: torch.device | str) -> "SequenceBatch":
        """Return the batch on `device`."""
        return SequenceBatch(
            self.obs.to(device),
            self.action.to(device),
            self.reward.to(device),
            self.terminated.to(device),
            self.valid.to(device),
        )
