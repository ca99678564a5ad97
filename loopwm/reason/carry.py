"""Deep supervision: slots that keep a puzzle for some steps, and are filled anew when it halts."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopwm.core.program import State
from loopwm.errors import DataError
from loopwm.reason.config import Halting


@dataclass(frozen=True, slots=True, kw_only=True)
class PuzzleBatch:
    """Hold puzzles with their answers.

    Attributes:
        tokens: The puzzles, each token in [0, V).
        labels: The answers; negative where none is asked for.
        puzzle_ids: Which puzzle each row is an example of, in [0, N).
    """

    tokens: Int[Tensor, "B S"]
    labels: Int[Tensor, "B S"]
    puzzle_ids: Int[Tensor, " B"]

    def __len__(self) -> int:
        """Return the number of puzzles B."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """Hold what goes from one update to the next.

    Attributes:
        state: The latents of each slot, without gradient.
        batch: The puzzle of each slot.
        steps: Steps that the slot has spent on it.
        halted: Whether the slot takes a new puzzle next.
    """

    state: State
    batch: PuzzleBatch
    steps: Int[Tensor, " B"]
    halted: Bool[Tensor, " B"]


def refill(carry: Carry, offered: PuzzleBatch, start: State) -> Carry:
    """Put offered puzzles into the slots that have halted; those for busy slots are dropped.

    Args:
        carry: The slots.
        offered: One puzzle for each slot.
        start: The latents that a puzzle starts from.

    Raises:
        DataError: If the number of puzzles is not the number of slots.
    """
    if len(offered) != len(carry.batch):
        raise DataError(f"{len(offered)} puzzles are offered to {len(carry.batch)} slots")
    free = carry.halted

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(free.view(-1, *[1] * (old.ndim - 1)), new, old)

    return Carry(
        state=tuple(chosen(new, old) for new, old in zip(start, carry.state, strict=True)),
        batch=PuzzleBatch(
            tokens=chosen(offered.tokens, carry.batch.tokens),
            labels=chosen(offered.labels, carry.batch.labels),
            puzzle_ids=chosen(offered.puzzle_ids, carry.batch.puzzle_ids),
        ),
        steps=carry.steps.masked_fill(free, 0),
        halted=torch.zeros_like(free),
    )


def after_step(
    carry: Carry,
    state: State,
    q_halt: Float[Tensor, " B"],
    rule: Halting,
    generator: torch.Generator,
) -> Carry:
    """Count a step and decide which slots have halted.

    Args:
        carry: The slots before the step.
        state: The latents after it; their gradient ends here.
        q_halt: Logit that the answer is right; above 0 the puzzle may leave.
        rule: When puzzles leave.
        generator: Source of the exploration, on the device of the slots.
    """
    steps = carry.steps + 1
    return Carry(
        state=tuple(s.detach() for s in state),
        batch=carry.batch,
        steps=steps,
        halted=halting(q_halt.detach(), steps, rule, generator),
    )


def halting(
    q_halt: Float[Tensor, " B"],
    steps: Int[Tensor, " B"],
    rule: Halting,
    generator: torch.Generator,
) -> Bool[Tensor, " B"]:
    """Return which puzzles leave after this step.

    Args:
        q_halt: Logit that the answer is right.
        steps: Steps spent on the puzzle, this one included.
        rule: When puzzles leave.
        generator: Source of the exploration.
    """
    last = steps >= rule.max_steps
    if rule.max_steps == 1:
        return last
    count, device = len(steps), steps.device
    explores = torch.rand(count, generator=generator, device=device) < rule.explore
    least = torch.randint(2, rule.max_steps + 1, (count,), generator=generator, device=device)
    return (last | (q_halt > 0)) & (~explores | (steps >= least))
