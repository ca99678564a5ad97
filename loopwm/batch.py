"""Batches of real experience, and the legend of axis letters used in every shape.

B batch, K window steps, H imagined horizon, N candidates, L tokens, D latent width, O observation,
A action. `h` is a latent state, `e` the injection that conditions its refinement.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceBatch:
    """Hold windows of consecutive transitions, none of which crosses an episode.

    A window that meets the end of its episode is padded; `valid` is False on the padding.

    Attributes:
        obs: Observations in environment units; step k goes from `obs[:, k]` to `obs[:, k + 1]`.
        action: Actions in environment units, or int64 indices for a discrete action space.
        reward: Reward of each step.
        terminated: Whether the step ended in a terminal state (truncation does not count).
        can_end: Whether the environment would have ended the episode in a terminal state here.
        valid: Whether the step is real rather than padding.
    """

    # After the reward, because the checks of the shapes must have met K before they can add 1.
    reward: Float[Tensor, "B K"]
    obs: Float[Tensor, "B K+1 O"]
    action: Float[Tensor, "B K A"] | Int[Tensor, "B K"]
    terminated: Bool[Tensor, "B K"]
    can_end: Bool[Tensor, "B K"]
    valid: Bool[Tensor, "B K"]

    def __len__(self) -> int:
        """Return the number of windows B."""
        return self.obs.shape[0]

    def steps(self, count: int) -> "SequenceBatch":
        """Return the first `count` steps of every window."""
        return SequenceBatch(
            obs=self.obs[:, : count + 1],
            action=self.action[:, :count],
            reward=self.reward[:, :count],
            terminated=self.terminated[:, :count],
            can_end=self.can_end[:, :count],
            valid=self.valid[:, :count],
        )

    def to(self, device: torch.device | str) -> "SequenceBatch":
        """Return the batch on `device`."""
        return SequenceBatch(
            obs=self.obs.to(device),
            action=self.action.to(device),
            reward=self.reward.to(device),
            terminated=self.terminated.to(device),
            can_end=self.can_end.to(device),
            valid=self.valid.to(device),
        )
