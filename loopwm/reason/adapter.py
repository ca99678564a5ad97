"""From tokens and puzzle ids to what the core is conditioned on."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.reason.config import ReasonerConfig


class Adapter(nn.Module):
    """Embed the tokens, and put what is learned of the puzzle before them.

    Args:
        config: Sizes.
    """

    def __init__(self, config: ReasonerConfig) -> None:
        super().__init__()
        self.prefix = config.prefix
        self.token = nn.Parameter(torch.empty(config.vocabulary, config.width))
        self.hold(torch.empty(config.puzzles, config.puzzle_width))

    def hold(self, table: Float[Tensor, "N E"]) -> None:
        """Take a table of what is learned of each puzzle, as it lies in memory or in a file."""
        self.puzzle = nn.Parameter(table)
        # Only the rows of a batch have a gradient, and only those are updated: see train/rows.
        self.puzzle._sparse_rows = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward(
        self, tokens: Int[Tensor, "B S"], puzzle_ids: Int[Tensor, " B"]
    ) -> Float[Tensor, "B L D"]:
        """Return the injection: the puzzle's row cut into prefix tokens, then the embeddings."""
        width = self.token.shape[1]
        row = F.embedding(puzzle_ids, self.puzzle, sparse=True).to(self.token.dtype)
        # A row shorter than the prefix leaves its last tokens blank: scratch space.
        prefix = F.pad(row, (0, self.prefix * width - row.shape[1])).unflatten(1, (-1, width))
        embedded = torch.cat([prefix, F.embedding(tokens, self.token)], dim=1)
        # Embeddings start with norm 1, the latents that they are added to with sqrt(D).
        return math.sqrt(width) * embedded
