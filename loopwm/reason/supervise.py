"""Training a reasoner step by step, as a module whose buffers are the slots."""

import torch
from torch import Tensor, nn

from loopwm.reason.carry import Carry, PuzzleBatch, after_step, refill
from loopwm.reason.config import Halting
from loopwm.reason.loss import IGNORED, step_loss
from loopwm.reason.model import Reasoner

_PUZZLE = ("tokens", "labels", "puzzle_ids")


class DeepSupervision(nn.Module):
    """Hold a reasoner and the slots that it is trained on; a call is one step of all slots.

    One step is one update (arXiv 2510.04871, fig. 3): a slot keeps its puzzle, and its latents as
    constants, until it halts. The slots are buffers, so that a checkpoint of this module holds all
    that goes from one update to the next.

    Args:
        reasoner: What is trained.
        slots: Puzzles in flight, the batch size.
        rule: When a puzzle leaves its slot.
    """

    def __init__(self, reasoner: Reasoner, slots: int, rule: Halting = Halting()) -> None:
        super().__init__()
        self.reasoner = reasoner
        self.rule = rule
        config = reasoner.config
        whole = torch.zeros(slots, config.length, dtype=torch.long)
        self.register_buffer("tokens", whole)
        self.register_buffer("labels", torch.full_like(whole, IGNORED))
        self.register_buffer("puzzle_ids", torch.zeros(slots, dtype=torch.long))
        for name, latent in zip(_latents(reasoner), reasoner.begin(slots), strict=True):
            self.register_buffer(name, latent.clone())
        self.register_buffer("steps", torch.zeros(slots, dtype=torch.long))
        # Nothing was begun: each slot takes the first puzzle that it is offered.
        self.register_buffer("halted", torch.ones(slots, dtype=torch.bool))

    @property
    def carry(self) -> Carry:
        """Return what the slots hold."""
        return Carry(
            state=tuple(self.get_buffer(name) for name in _latents(self.reasoner)),
            batch=PuzzleBatch(**{name: self.get_buffer(name) for name in _PUZZLE}),
            steps=self.get_buffer("steps"),
            halted=self.get_buffer("halted"),
        )

    @carry.setter
    def carry(self, carry: Carry) -> None:
        named = dict(zip(_latents(self.reasoner), carry.state, strict=True))
        named |= {name: getattr(carry.batch, name) for name in _PUZZLE}
        named |= {"steps": carry.steps, "halted": carry.halted}
        for name, value in named.items():
            setattr(self, name, value)

    @property
    def free(self) -> int:
        """Return the number of slots that take a new puzzle next."""
        return int(self.get_buffer("halted").sum())

    def forward(
        self, offered: PuzzleBatch, generator: torch.Generator, progress: float = 1.0
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Fill the free slots, think for one step, and judge it.

        Args:
            offered: One puzzle for each free slot.
            generator: Source of the exploration.
            progress: Share of training that is over, in [0, 1].

        Returns:
            The loss, and what to log: its parts, shares of tokens and of whole answers that are
            right, the number of puzzles that were new, and the mean number of steps of those that
            made way for them, left out where there were none.
        """
        # Free slots hold the steps of what has left them, 0 before the first puzzle. Filling them
        # waits for the device anyhow; after this step the same number would keep it waiting.
        left = int((self.carry.steps * self.carry.halted).sum())
        carry = refill(self.carry, offered, self.reasoner.begin(len(offered)))
        puzzle = carry.batch
        # Not `step`: what is offered was looked at when it was drawn.
        state, logits, q_halt = self.reasoner.think(carry.state, puzzle.tokens, puzzle.puzzle_ids)
        loss = step_loss(logits, q_halt, puzzle.labels)
        rule = self.rule.at(progress)
        self.carry = carry = after_step(carry, state, q_halt, rule, generator)
        return loss.total, {
            "answer": loss.answer.detach().mean(),
            "verdict": loss.verdict.detach().mean(),
            "tokens_right": loss.accuracy.mean(),
            "exact": loss.right.float().mean(),
            "new": float(len(offered)),
            **({"steps": left / len(offered)} if left else {}),
        }


def _latents(reasoner: Reasoner) -> tuple[str, ...]:
    return tuple(f"latent_{index}" for index in range(reasoner.core.program.num_states))
