"""The reasoner: two latents that think and answer, refined by the looped core."""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopwm.core.grad import GradientMode, LastK
from loopwm.core.loop import LoopedCore
from loopwm.core.post_norm import PostNormCell
from loopwm.core.program import LOOPWM, State, trm
from loopwm.errors import DataError
from loopwm.reason.adapter import Adapter
from loopwm.reason.config import ReasonerConfig
from loopwm.reason.edge import enter, leave
from loopwm.reason.layout import Layout
from loopwm.reason.presets import preset

_NEVER_YET = -5.0


class Reasoner(nn.Module):
    """Answer a puzzle in steps, each of which goes on from the last one's latents.

    TRM (arXiv 2510.04871): a step runs `cycles` times "refine the thinking latent n times from
    puzzle and answer, then the answer once from the thought", of which the last has a gradient.

    Args:
        config: Sizes.
        seed: Seed of the weights; torch's global generator is left as it was.

    Attributes:
        layout: Of an imported model, how its file names and stores things.
        history: Records of its training, where it was trained here.
        lesson: Name of what it was trained on (`loopwm.reason.lessons`), or empty.
    """

    def __init__(self, config: ReasonerConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.layout: Layout | None = None
        self.history: list[dict[str, Any]] = []
        self.lesson = ""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = Adapter(config)
            cell = PostNormCell(config.width, config.cell, config.tokens)
            self.core = LoopedCore(cell, trm(config.inner) if config.inner else LOOPWM)
            self.decode = nn.Linear(config.width, config.vocabulary, bias=False)
            self.judge = nn.Linear(config.width, 2)
            # Fixed, never trained: the same for every puzzle and place.
            self.register_buffer("start_answer", torch.empty(config.width))
            self.register_buffer("start_thought", torch.empty(config.width))
            self.reset_parameters()

    @classmethod
    def from_preset(cls, name: str, num_puzzles: int = 1, seed: int = 0) -> "Reasoner":
        """Make a model of a published shape with random weights.

        Args:
            name: One of `loopwm.reason.presets.PRESETS`.
            num_puzzles: Number of puzzle ids, at least 1.
            seed: Seed of the weights.

        Raises:
            ConfigError: If there is no such preset.
        """
        return cls(replace(preset(name), puzzles=num_puzzles), seed)

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's global generator."""
        for parameter in (*self.core.parameters(), self.decode.weight):
            truncated_normal(parameter, 1 / math.sqrt(parameter.shape[1]))
        truncated_normal(self.adapter.token, 1 / math.sqrt(self.config.width))
        truncated_normal(self.get_buffer("start_answer"), 1.0)
        truncated_normal(self.get_buffer("start_thought"), 1.0)
        nn.init.zeros_(self.adapter.puzzle)
        nn.init.zeros_(self.judge.weight)
        # At first nothing is taken for right, so that puzzles stay for all their steps.
        nn.init.constant_(self.judge.bias, _NEVER_YET)

    def start(self, tokens: Any) -> State:
        """Return the latents, answer and, if there is one, thought, that the first step refines.

        Args:
            tokens: The puzzles, as in `step`.

        Raises:
            DataError: If they do not fit; see `step`.
        """
        return self.begin(len(self._enter(tokens, None)[0]))

    def step(
        self,
        state: State,
        tokens: Any,
        puzzle_ids: Any = None,
        *,
        grad: GradientMode = LastK(1),
    ) -> tuple[State, Any, Any]:
        """Think for one step.

        Args:
            state: What `start` or the last step returned.
            tokens: The puzzles [B, S], integers in [0, V): numpy array, torch tensor or nested
                list.
            puzzle_ids: Which puzzle each row is an example of, integers [B] in [0, N); None takes
                id 0.
            grad: How gradients flow through the cycles.

        Returns:
            The latents, tensors on the model's device; logits [B, S, V] of the answer; and the
            logit [B] that the answer is right. If tokens are a tensor, so are both, on its device;
            else they are numpy arrays.

        Raises:
            DataError: If tokens or ids are no integers, have another shape or length or are out of
                range, or if there are not as many as the state has rows. Ranges of tensors on a
                GPU are not checked.
        """
        entered = self._enter(tokens, puzzle_ids, state)
        state, logits, q_halt = self.think(state, *entered, grad)
        return state, leave(logits, tokens), leave(q_halt, tokens)

    def advance(
        self, state: State, tokens: Any, puzzle_ids: Any = None, grad: GradientMode = LastK(1)
    ) -> State:
        """Refine the latents by one step; see `step`."""
        return self._refine(state, *self._enter(tokens, puzzle_ids, state), grad)

    def begin(self, rows: int) -> State:
        """Return what `start` returns for so many puzzles."""
        shape = (rows, self.config.tokens, self.config.width)
        buffers = (self.get_buffer("start_answer"), self.get_buffer("start_thought"))
        return tuple(buffer.expand(shape) for buffer in buffers[: self.core.program.num_states])

    def think(
        self,
        state: State,
        tokens: Int[Tensor, "B S"],
        puzzle_ids: Int[Tensor, " B"],
        grad: GradientMode = LastK(1),
    ) -> tuple[State, Float[Tensor, "B S V"], Float[Tensor, " B"]]:
        """Do what `step` does, for puzzles that were checked before, as those in training are."""
        state = self._refine(state, tokens, puzzle_ids, grad)
        return state, self.answer(state), self.verdict(state)[:, 0]

    def answer(self, state: State) -> Float[Tensor, "B S V"]:
        """Decode the answer's latent."""
        return self.decode(state[0])[:, self.config.prefix :]

    def verdict(self, state: State) -> Float[Tensor, "B 2"]:
        """Return the logits that the answer is right, and of going on, which training ignores."""
        verdict = self.judge(state[0][:, 0])
        return verdict.to(torch.promote_types(verdict.dtype, torch.float32))

    def _refine(
        self, state: State, tokens: Tensor, puzzle_ids: Tensor, grad: GradientMode
    ) -> State:
        e = self.adapter(tokens, puzzle_ids)
        return self.core(state, e, self.config.cycles, grad=grad).state

    def _enter(
        self, tokens: Any, puzzle_ids: Any, state: State | None = None
    ) -> tuple[Tensor, Tensor]:
        """Check puzzles, against the rows of a state if there is one, and bring them here."""
        entered = enter(tokens, puzzle_ids, self.config, self.adapter.token.device)
        if state is not None and len(state[0]) != len(entered[0]):
            raise DataError(
                f"tokens are of {len(entered[0])} puzzles, the state of {len(state[0])}: give the "
                "puzzles that it was started with, or start anew"
            )
        return entered


def truncated_normal(tensor: Tensor, std: float) -> None:
    """Fill with normal values cut at two deviations, whose deviation after the cut is `std`."""
    mass = math.erf(math.sqrt(2))
    # Variance of a standard normal that is cut at +-2.
    kept = 1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / mass
    wide = std / math.sqrt(kept)
    nn.init.trunc_normal_(tensor, std=wide, a=-2 * wide, b=2 * wide)
