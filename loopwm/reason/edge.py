"""The edge between the user's puzzles and the reasoner: numpy or torch in, the same out."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopwm.errors import DataError
from loopwm.reason.check import check_range, check_shapes
from loopwm.reason.config import ReasonerConfig

# Types that tables are looked up by; other integers become the wider one.
_LOOKED_UP_BY = (torch.int32, torch.int64)


def enter(
    tokens: Any, puzzle_ids: Any, config: ReasonerConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Bring puzzles to the device of a reasoner, as tensors that its tables are looked up by.

    Args:
        tokens: The puzzles [B, S], integers in [0, V): numpy array, torch tensor or nested list.
        puzzle_ids: Which puzzle each row is an example of, [B] in [0, N); None takes id 0.
        config: Sizes of the reasoner.
        device: Where its weights are.

    Returns:
        Tokens and ids. The range of what lies on a GPU is not looked at.

    Raises:
        DataError: If they are no integers, or shapes, tokens or ids do not fit.
    """
    tokens = _whole("tokens", tokens)
    if puzzle_ids is None:
        puzzle_ids = tokens.new_zeros(tokens.shape[:1])
    puzzle_ids = _whole("puzzle_ids", puzzle_ids)
    check_shapes(tokens, puzzle_ids, config)
    # To look at numbers on a GPU is to wait for all that it still has to do.
    if tokens.device.type == "cpu":
        check_range("tokens", tokens, config.vocabulary)
    if puzzle_ids.device.type == "cpu":
        check_range("puzzle_ids", puzzle_ids, config.puzzles)
    return tokens.to(device), puzzle_ids.to(device)


def leave(result: Tensor, asked: Any) -> Any:
    """Return a result as the kind of array that came in, on its device.

    Args:
        result: What a reasoner found.
        asked: What came in; a result for anything but a tensor is a numpy array.
    """
    if isinstance(asked, Tensor):
        return result.to(asked.device)
    # Numpy has no bfloat16, of whose numbers float32 holds each.
    wide = result.float() if result.dtype == torch.bfloat16 else result
    return wide.detach().cpu().numpy()


def _whole(name: str, given: Any) -> Tensor:
    """Return integers of any type and kind of array as a tensor, where it lies."""
    if not isinstance(given, Tensor):
        return _of_array(name, given)
    dtype = given.dtype
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise DataError(
            f"{name} must be whole numbers, got {dtype}: convert by .long() if they are"
        )
    return given if dtype in _LOOKED_UP_BY else given.long()


def _of_array(name: str, given: Any) -> Tensor:
    try:
        array = np.asarray(given)
    # numpy raises the first for rows of different lengths, the second for tensors on a GPU.
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} must be an array of whole numbers: {error}") from error
    # An empty list has no numbers, and yet a type, which is that of halves.
    if array.dtype.kind not in "iu" and array.size:
        raise DataError(
            f"{name} must be whole numbers, got {type(given).__name__} of type {array.dtype}: "
            "convert by .astype(int) if they are"
        )
    # A copy, because torch refuses reversed arrays and warns of those that it may not write to.
    return torch.from_numpy(array.astype(np.int64))
