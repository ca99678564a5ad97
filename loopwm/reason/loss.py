"""What a step is trained by: the right tokens, and knowing whether they are."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
"""Label of tokens that are not asked for."""

_JUDGING = 0.5


@dataclass(frozen=True, slots=True)
class StepLoss:
    """Hold the loss of each row of a step.

    Attributes:
        answer: Mean stablemax cross-entropy of the labelled tokens.
        verdict: Cross-entropy of the model's verdict on its own answer.
        right: Whether all labelled tokens are right.
        accuracy: Share of the labelled tokens that are right; 0 where there is none.
    """

    answer: Float[Tensor, " B"]
    verdict: Float[Tensor, " B"]
    right: Bool[Tensor, " B"]
    accuracy: Float[Tensor, " B"]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Return what is minimised, the mean over rows."""
        return (self.answer + _JUDGING * self.verdict).mean()


def step_loss(
    logits: Float[Tensor, "B S V"], q_halt: Float[Tensor, " B"], labels: Int[Tensor, "B S"]
) -> StepLoss:
    """Return the loss of a step (arXiv 2510.04871, fig. 3; halting as there, without Q-learning).

    Args:
        logits: The answer.
        q_halt: Logit that it is right.
        labels: The right tokens; negative where none is asked for.
    """
    asked = labels >= 0
    count = asked.sum(1).clamp_min(1)
    hit = (logits.argmax(-1) == labels) & asked
    right = hit.sum(1) == asked.sum(1)
    return StepLoss(
        answer=stablemax_cross_entropy(logits, labels).sum(1) / count,
        verdict=F.binary_cross_entropy_with_logits(
            q_halt, right.to(q_halt.dtype), reduction="none"
        ),
        right=right,
        accuracy=hit.sum(1) / count,
    )


def stablemax_cross_entropy(
    logits: Float[Tensor, "*B V"], labels: Int[Tensor, "*B"]
) -> Float[Tensor, "*B"]:
    """Return `-log(s(x_label) / sum s(x))` of each token (arXiv 2501.04697, eq. 3 and 4).

    `s(x)` is x + 1 from 0 up and 1 / (1 - x) below, so that log s is `log(1 + |x|)` with the sign
    of x: stablemax is the softmax of that, and needs no double precision.

    Args:
        logits: Scores of the tokens.
        labels: The right tokens; a negative one gives 0.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # At 0 the first term alone has the slope: 1, from both sides.
    log_s = torch.log1p(wide.clamp_min(0)) - torch.log1p(torch.relu(-wide))
    labels = torch.where(labels < 0, IGNORED, labels.long())
    flat = F.cross_entropy(
        log_s.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(labels.shape)
