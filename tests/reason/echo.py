"""A source of puzzles that take milliseconds: say the tokens in reverse."""

import torch

from loopwm.reason.carry import PuzzleBatch


class Reversed:
    """Ask for the tokens in reverse; the last puzzle id is never drawn."""

    vocabulary = 5
    length = 3
    num_puzzles = 6

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        """Draw puzzles."""
        tokens = torch.randint(0, 5, (count, 3), generator=generator)
        ids = torch.randint(0, 5, (count,), generator=generator)
        return PuzzleBatch(tokens=tokens, labels=tokens.flip(1), puzzle_ids=ids)


def held_out(count: int = 64) -> PuzzleBatch:
    """Return fixed puzzles."""
    return Reversed().sample(torch.Generator().manual_seed(99), count)
