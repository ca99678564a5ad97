"""Refuse puzzles that a reasoner cannot take, before they are looked up in its tables."""

import torch
from torch import Tensor

from loopwm.errors import DataError
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.config import ReasonerConfig


def check_puzzles(batch: PuzzleBatch, config: ReasonerConfig) -> None:
    """Refuse puzzles with answers that a reasoner of these sizes cannot take.

    Args:
        batch: The puzzles.
        config: The sizes.

    Raises:
        DataError: If there are none, if shapes, tokens, labels or ids do not fit, or a puzzle asks
            for nothing.
    """
    if not len(batch):
        raise DataError("there are no puzzles: the batch has no rows")
    check_asked(batch.tokens, batch.puzzle_ids, config)
    if batch.labels.shape != batch.tokens.shape:
        raise DataError(
            f"labels have the shape {tuple(batch.labels.shape)}, tokens {tuple(batch.tokens.shape)}"
            ": every token needs a label, a negative one where nothing is asked"
        )
    # A negative label asks for nothing.
    check_range("labels", batch.labels, config.vocabulary, low=None)
    unasked = int((batch.labels < 0).all(1).sum())
    if unasked:
        raise DataError(
            f"{unasked} of {len(batch)} puzzles have no label that is not negative: nothing is "
            "asked of them, so any answer would count as right; leave them out"
        )


def check_asked(tokens: Tensor, puzzle_ids: Tensor, config: ReasonerConfig) -> None:
    """Refuse puzzles without answers that a reasoner of these sizes cannot take.

    Args:
        tokens: Must be whole numbers [B, S] in [0, V).
        puzzle_ids: Must be whole numbers [B] in [0, N).
        config: The sizes.

    Raises:
        DataError: If shapes, tokens or ids do not fit.
    """
    check_shapes(tokens, puzzle_ids, config)
    check_range("tokens", tokens, config.vocabulary)
    check_range("puzzle_ids", puzzle_ids, config.puzzles)


def check_shapes(tokens: Tensor, puzzle_ids: Tensor, config: ReasonerConfig) -> None:
    """Refuse puzzles of another shape, without a look at their numbers.

    Args:
        tokens: Must have the shape [B, S].
        puzzle_ids: Must have the shape [B].
        config: The sizes.

    Raises:
        DataError: If a shape does not fit.
    """
    if tokens.ndim != 2:
        raise DataError(f"tokens must have the shape [B, S], got {tuple(tokens.shape)}")
    if tokens.shape[1] != config.length:
        raise DataError(
            f"puzzles have {tokens.shape[1]} tokens, the reasoner is for {config.length}: "
            "choose a preset of their length, or pad them"
        )
    if puzzle_ids.shape != tokens.shape[:1]:
        raise DataError(
            f"puzzle_ids have the shape {tuple(puzzle_ids.shape)} for {len(tokens)} puzzles: give "
            "one id for each"
        )


def check_range(name: str, values: Tensor, end: int, low: int | None = 0) -> None:
    """Refuse numbers that no row of a table belongs to.

    Args:
        name: Name of the argument, for the error.
        values: The numbers.
        end: Number of rows of the table.
        low: Least number allowed; None allows all below 0.

    Raises:
        DataError: If they are of another type than tables are looked up by, or out of range.
    """
    # Tables are looked up by these two alone.
    if values.dtype not in (torch.int32, torch.int64):
        raise DataError(
            f"{name} must be whole numbers, got {values.dtype}, which is neither int32 nor int64: "
            "convert by .long()"
        )
    if not values.numel():
        return
    least, most = int(values.min()), int(values.max())
    if most >= end or (low is not None and least < low):
        raise DataError(f"{name} must be in [0, {end}), got values from {least} to {most}")
