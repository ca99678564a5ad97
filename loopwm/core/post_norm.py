"""The cell of TRM: blocks of token mixing and gated layers that normalise each sum."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from loopwm.core.block import Attention, Block, SwiGLU
from loopwm.core.cell import Conditioning, Weights
from loopwm.core.config import Attend, MixTokens, PostNorm
from loopwm.core.rotary import rotation_of
from loopwm.errors import ConfigError


class PostNormCell(nn.Module):
    """Refine by blocks with normalised sums: `h+ = Blocks(h + e)` (arXiv 2510.04871).

    Args:
        width: Width D of the state.
        config: The blocks.
        tokens: Number of tokens L; what mixes them by a perceptron takes exactly so many, what
            knows their places at most so many, counted from the first.
    """

    num_conditions = 1

    def __init__(self, width: int, config: PostNorm, tokens: int = 1) -> None:
        super().__init__()
        self.width = width
        self.tokens = tokens
        mixer = config.mixer
        self.theta = mixer.theta if isinstance(mixer, Attend) else None
        config.check_width(width)
        self.fixed = isinstance(mixer, MixTokens)
        self.blocks = nn.ModuleList(_block(width, config, tokens) for _ in range(config.layers))

    def condition(self, e: Float[Tensor, "B L D"]) -> Conditioning:
        """Return the injection as it is."""
        return (e,)

    def constrain(self) -> Weights:
        """Return the angles of the tokens' places; no weight is constrained."""
        first = self.blocks[0]
        assert isinstance(first, Block)
        if self.theta is None or not isinstance(first.mix, Attention):
            return ()
        like = first.mix.leave.weight
        return rotation_of(self.tokens, self.width // first.mix.heads, self.theta, like)

    def proven_bound(self, injection: float, start: Float[Tensor, " D"]) -> float:
        """Bound the norm of a token: the last step of a refinement normalises it."""
        return max(float(start.detach().double().norm()), math.sqrt(self.width))

    def forward(
        self,
        h: Float[Tensor, "B L D"],
        conditioning: Conditioning,
        weights: Weights | None = None,
    ) -> Tensor:
        """Refine h once.

        Raises:
            ConfigError: If the cell is made for other numbers of tokens.
        """
        tokens = h.shape[1]
        if self.fixed and tokens != self.tokens:
            raise ConfigError(f"the cell is made for {self.tokens} tokens, got {tokens}")
        if self.theta is not None and tokens > self.tokens:
            raise ConfigError(f"the cell knows {self.tokens} places, got {tokens} tokens")
        cos_and_sin = weights or self.constrain()
        rotation = (cos_and_sin[0][:tokens], cos_and_sin[1][:tokens]) if cos_and_sin else None
        h = h + conditioning[0]
        for block in self.blocks:
            h = block(h, rotation)
        return h


def _block(width: int, config: PostNorm, tokens: int) -> Block:
    match config.mixer:
        case Attend(heads=heads):
            mix = Attention(width, heads)
        case MixTokens():
            mix = SwiGLU(tokens, config.hidden(tokens))
        case None:
            mix = None
    return Block(width, mix, config.hidden(width), "post", config.eps)
