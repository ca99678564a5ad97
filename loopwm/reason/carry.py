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

    def rows(self, rows: slice | Int[Tensor, " R"]) -> "PuzzleBatch":
        """Return some of the puzzles.

        Args:
            rows: Which ones, in this order.
        """
        return PuzzleBatch(
            tokens=self.tokens[rows], labels=self.labels[rows], puzzle_ids=self.puzzle_ids[rows]
        )


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
    """Put new puzzles into the slots that have halted.

    Args:
        carry: The slots.
        offered: One puzzle for each slot that has halted, in the order of the slots.
        start: The latents that these puzzles start from.

    Raises:
        DataError: If the number of puzzles is not that of the free slots.
    """
    free = carry.halted.nonzero().squeeze(1)
    if len(offered) != len(free):
        raise DataError(f"{len(offered)} puzzles are offered to {len(free)} free slots")

    def filled(old: Tensor, new: Tensor) -> Tensor:
        return old.index_copy(0, free, new.to(old.dtype))

    batch = carry.batch
    return Carry(
        state=tuple(filled(old, new) for old, new in zip(carry.state, start, strict=True)),
        batch=PuzzleBatch(
            tokens=filled(batch.tokens, offered.tokens),
            labels=filled(batch.labels, offered.labels),
            puzzle_ids=filled(batch.puzzle_ids, offered.puzzle_ids),
        ),
        steps=carry.steps.masked_fill(carry.halted, 0),
        halted=torch.zeros_like(carry.halted),
    )


def after_step(
    carry: Carry,
    state: State,
    q_halt: Float[Tensor, " B"],
    rule: Halting,
    generator: torch.Generator,
) -> Carry:
    """Count a step and decide which slots have halted.

    A slot whose latents are not finite has: they would be thought on, and spoil each update to come
    and the checkpoints.

    Args:
        carry: The slots before the step.
        state: The latents after it; their gradient ends here.
        q_halt: Logit that the answer is right; above 0 the puzzle may leave.
        rule: When puzzles leave.
        generator: Source of the exploration, on the device of the slots.
    """
    steps = carry.steps + 1
    sound = torch.stack([s.detach().isfinite().flatten(1).all(1) for s in state]).all(0)
    return Carry(
        state=tuple(s.detach().where(sound[:, None, None], 0) for s in state),
        batch=carry.batch,
        steps=steps,
        halted=halting(q_halt.detach(), steps, rule, generator) | ~sound,
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
