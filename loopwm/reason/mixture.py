"""Several sources drawn from by turns of chance."""

from collections.abc import Sequence

import torch

from loopwm.errors import ConfigError
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.source import PuzzleSource


class Mixture:
    """Draw each puzzle from one of several sources, all equally likely; a `PuzzleSource`.

    Args:
        sources: Sources of one vocabulary, length and numbering of puzzles.

    Raises:
        ConfigError: If there are none, or they differ.
    """

    def __init__(self, sources: Sequence[PuzzleSource]) -> None:
        shapes = {(each.vocabulary, each.length, each.num_puzzles) for each in sources}
        if len(shapes) != 1:
            raise ConfigError(
                "a mixture needs sources of one vocabulary, length and number of puzzles, "
                f"got {sorted(shapes)}"
            )
        self.sources = tuple(sources)
        (self._shape,) = shapes

    @property
    def vocabulary(self) -> int:
        """Return the number V of different tokens."""
        return self._shape[0]

    @property
    def length(self) -> int:
        """Return the number S of tokens of each puzzle."""
        return self._shape[1]

    @property
    def num_puzzles(self) -> int:
        """Return the number N of puzzle ids."""
        return self._shape[2]

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        """Draw puzzles.

        Args:
            generator: Source of the draws, on the CPU.
            count: Number of puzzles B.
        """
        chosen = torch.randint(len(self.sources), (count,), generator=generator)
        sizes = torch.bincount(chosen, minlength=len(self.sources)).tolist()
        parts = [
            source.sample(generator, size)
            for source, size in zip(self.sources, sizes, strict=True)
            if size
        ]
        # The k-th puzzle of a source goes to the k-th row that chose it.
        place = chosen.argsort(stable=True).argsort()
        return PuzzleBatch(
            tokens=torch.cat([part.tokens for part in parts])[place],
            labels=torch.cat([part.labels for part in parts])[place],
            puzzle_ids=torch.cat([part.puzzle_ids for part in parts])[place],
        )
