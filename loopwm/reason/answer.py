"""Ask a trained reasoner: for how many steps, when to stop, and the best of several tries."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopwm.core.program import State
from loopwm.core.rows import relative_change
from loopwm.core.settings import settle, whole
from loopwm.errors import ConfigError
from loopwm.reason.check import check_asked
from loopwm.reason.edge import enter
from loopwm.reason.model import Reasoner
from loopwm.reason.stop import Stop, Thought
from loopwm.seed import torch_rng

_Disturb = Callable[[State, Int[Tensor, " B"]], State]


@dataclass(frozen=True)
class Noise:
    """Try several times with noise on the latents; the try that is surest of itself answers.

    The noise of a puzzle depends on the seed and the puzzle, not on what else is asked with it.

    It needs no training of its own (PTRM, a finding about TRM: more right answers are reached than
    are chosen). Before each step normal numbers are added to the latents, whose mean square is 1.

    Args:
        samples: Tries of each puzzle, at least 1; the first one has no noise.
        scale: Standard deviation of the noise, not negative.
        seed: Seed of the noise, not negative.
    """

    samples: int = 8
    scale: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        settle(self)
        if self.samples < 1:
            raise ConfigError(f"Noise.samples must be at least 1, got {self.samples}")
        if not 0 <= self.scale < float("inf"):
            raise ConfigError(f"Noise.scale must be finite and not negative, got {self.scale}")
        if self.seed < 0:
            raise ConfigError(f"Noise.seed must not be negative, got {self.seed}")


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what a reasoner answered.

    Attributes:
        tokens: The answers.
        confidence: Probability in [0, 1] that the model gives each.
        steps: Steps that each answer took.
        stopped: Whether the stop rule ended it, and not the largest number of steps.
    """

    tokens: Int[Tensor, "B S"]
    confidence: Float[Tensor, " B"]
    steps: Int[Tensor, " B"]
    stopped: Bool[Tensor, " B"]


@dataclass(frozen=True, slots=True)
class Trace:
    """Hold the answer after every one of T steps.

    Attributes:
        tokens: The answers.
        confidence: Probability in [0, 1] that the model gives each.
        change: Change of the answer's latent in the step, relative to its norm.
    """

    tokens: Int[Tensor, "T B S"]
    confidence: Float[Tensor, "T B"]
    change: Float[Tensor, "T B"]


@torch.no_grad()
def solve(
    model: Reasoner,
    tokens: Any,
    puzzle_ids: Any = None,
    *,
    steps: int = 16,
    stop: Stop | None = None,
    noise: Noise | None = None,
    batch_size: int = 256,
) -> Answer:
    """Answer puzzles.

    Args:
        model: Who answers.
        tokens: The puzzles [B, S], integers in [0, V): numpy array, torch tensor or nested list.
        puzzle_ids: Which puzzle each row is an example of, integers [B] in [0, N); None takes
            id 0.
        steps: Most steps, at least 1; it may be more than training had.
        stop: Rule by which puzzles leave earlier: `Sure`, `Unchanged` or `Settled`.
        noise: Tries with noise; None answers once, without.
        batch_size: Most rows at once, at least 1; all tries of a puzzle go together, however many.

    Returns:
        Tensors on the device of the model, whatever kind of array was asked.

    Raises:
        ConfigError: If a number is below 1 or not whole, or `stop` is no rule.
        DataError: If tokens or ids are no integers, have another shape or length or are out of
            range.
    """
    _check_counts(steps=steps, batch_size=batch_size)
    for name, value, kind, such in (
        ("stop", stop, Stop, "Sure()"),
        ("noise", noise, Noise, "Noise(8)"),
    ):
        if not isinstance(value, kind | None):
            raise ConfigError(f"{name} must be None or an object such as {such}, got {value!r}")
    tokens, puzzle_ids = _entered(model, tokens, puzzle_ids)
    tries = 1 if noise is None else noise.samples
    parts = []
    for rows in torch.arange(len(tokens), device=tokens.device).split(max(1, batch_size // tries)):
        disturb = None if noise is None else _disturbance(noise, tokens[rows], puzzle_ids[rows])
        rows = rows.repeat_interleave(tries)
        part = _think(model, tokens[rows], puzzle_ids[rows], steps, stop, disturb)
        parts.append(_surest(part, tries))
    return _joined(parts, tokens)


@torch.no_grad()
def trace(
    model: Reasoner,
    tokens: Any,
    puzzle_ids: Any = None,
    *,
    steps: int = 16,
    batch_size: int = 256,
) -> Trace:
    """Answer puzzles after every step.

    Args:
        model: Who answers.
        tokens: The puzzles [B, S], integers in [0, V): numpy array, torch tensor or nested list.
        puzzle_ids: Which puzzle each row is an example of, integers [B] in [0, N); None takes
            id 0.
        steps: Number T of steps, at least 1.
        batch_size: Puzzles at once, at least 1.

    Returns:
        Tensors on the device of the model, whatever kind of array was asked.

    Raises:
        ConfigError: If a number is below 1 or not whole.
        DataError: If tokens or ids are no integers, have another shape or length or are out of
            range.
    """
    _check_counts(steps=steps, batch_size=batch_size)
    tokens, puzzle_ids = _entered(model, tokens, puzzle_ids)
    answers = tokens.new_empty(steps, *tokens.shape)
    confidence = torch.empty(steps, len(tokens), device=tokens.device)
    change = torch.empty_like(confidence)
    for rows in torch.arange(len(tokens), device=tokens.device).split(batch_size):
        asked, ids = tokens[rows], puzzle_ids[rows]
        state = model.start(asked)
        for t in range(steps):
            before = state[0]
            state, logits, q_halt = model.step(state, asked, ids)
            answers[t, rows] = logits.argmax(-1).to(answers.dtype)
            confidence[t, rows] = q_halt.sigmoid().to(confidence.dtype)
            change[t, rows] = relative_change(state[0], before).to(change.dtype)
    return Trace(answers, confidence, change)


def _entered(model: Reasoner, tokens: Any, puzzle_ids: Any) -> tuple[Tensor, Tensor]:
    tokens, puzzle_ids = enter(tokens, puzzle_ids, model.config, model.adapter.token.device)
    # Ranges on a GPU, too: one wait for all steps.
    check_asked(tokens, puzzle_ids, model.config)
    return tokens, puzzle_ids


def _think(
    model: Reasoner,
    tokens: Tensor,
    ids: Tensor,
    steps: int,
    stop: Stop | None,
    disturb: _Disturb | None,
) -> Answer:
    """Run each row until the rule lets it go; rows that have left cost nothing further."""
    rows = torch.arange(len(tokens), device=tokens.device)
    out = Answer(
        torch.empty_like(tokens),
        torch.empty(len(tokens), device=tokens.device),
        torch.empty_like(rows),
        torch.zeros_like(rows, dtype=torch.bool),
    )
    state, calm, before = model.start(tokens), torch.zeros_like(rows), None
    for t in range(1, steps + 1):
        if disturb is not None:
            state = disturb(state, rows)
        now = Thought(*model.step(state, tokens, ids))
        if stop is not None:
            calm = torch.where(stop.met(now, before), calm + 1, 0)
        done = calm >= stop.patience if stop is not None else torch.zeros_like(rows).bool()
        leaving = done | (t == steps)
        left = rows[leaving]
        out.tokens[left] = now.logits[leaving].argmax(-1).to(tokens.dtype)
        out.confidence[left] = now.q_halt[leaving].sigmoid().to(out.confidence.dtype)
        out.steps[left], out.stopped[left] = t, done[leaving]
        if len(left) == len(rows):
            break
        state, before = now.state, now
        if len(left):
            stay = ~leaving
            state, before = tuple(s[stay] for s in state), _kept(now, stay)
            rows, tokens, ids, calm = rows[stay], tokens[stay], ids[stay], calm[stay]
    return out


def _kept(thought: Thought, stay: Tensor) -> Thought:
    return Thought(
        tuple(s[stay] for s in thought.state), thought.logits[stay], thought.q_halt[stay]
    )


def _disturbance(noise: Noise, tokens: Int[Tensor, "P S"], ids: Int[Tensor, " P"]) -> _Disturb:
    """Return what adds noise to the tries of these puzzles, each from a generator of its own."""
    device, count = tokens.device, noise.samples
    generators = [
        torch_rng(noise.seed, "reason", "noise", zlib.crc32(puzzle.tobytes()), int(number),
                  device=str(device))
        for puzzle, number in zip(tokens.long().cpu().numpy(), ids.tolist(), strict=True)
    ]  # fmt: skip

    def disturb(state: State, rows: Tensor) -> State:
        live, place = torch.unique(rows // count, return_inverse=True)
        tries = place * count + rows % count
        noisy = (rows % count != 0)[:, None, None] * noise.scale

        def drawn(like: Tensor) -> Tensor:
            shape = (count, *like.shape[1:])
            parts = [
                torch.randn(shape, generator=generators[p], device=device, dtype=like.dtype)
                for p in live.tolist()
            ]
            return torch.cat(parts)[tries]

        return tuple(s + noisy * drawn(s) for s in state)

    return disturb


def _surest(part: Answer, tries: int) -> Answer:
    """Return of each puzzle the try of highest confidence, the first of equals."""
    if tries == 1:
        return part
    grouped = part.confidence.view(-1, tries)
    best = grouped.argmax(1) + torch.arange(len(grouped), device=grouped.device) * tries
    return Answer(part.tokens[best], part.confidence[best], part.steps[best], part.stopped[best])


def _joined(parts: Sequence[Answer], tokens: Tensor) -> Answer:
    if not parts:
        none = torch.zeros(0, dtype=torch.long, device=tokens.device)
        return Answer(tokens, none.float(), none, none.bool())
    return Answer(
        torch.cat([each.tokens for each in parts]),
        torch.cat([each.confidence for each in parts]),
        torch.cat([each.steps for each in parts]),
        torch.cat([each.stopped for each in parts]),
    )


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if whole(name, value) < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
