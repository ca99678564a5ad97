"""The edge between the user's arrays and the model: numpy or torch in, the same out."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopwm.errors import DataError

Array = np.ndarray | Tensor
# Bytes of the widest number that torch has; numpy has wider ones.
_WIDEST = 8


@dataclass(frozen=True)
class Edge:
    """Remember how an array came in, so that results go out the same way.

    Attributes:
        numpy: Whether numpy came in.
        dtype: Floating type of the results.
        device: Device of the results.
        lead: Leading batch shape of the results.
    """

    numpy: bool
    dtype: torch.dtype
    device: torch.device
    lead: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Return the number of rows, all leading axes together."""
        return math.prod(self.lead)

    @classmethod
    def of(cls, array: Any, name: str, last: tuple[int, ...]) -> "Edge":
        """Describe an array whose trailing axes must be `last`.

        Raises:
            DataError: If the trailing axes differ, or it is no array of numbers.
        """
        is_numpy = not isinstance(array, Tensor)
        tensor = to_tensor(array, name=name)
        lead = tensor.shape[: tensor.ndim - len(last)]
        if tensor.ndim < len(last) or tuple(tensor.shape[len(lead) :]) != last:
            raise DataError(f"{name} must end in the axes {last}, got shape {tuple(tensor.shape)}")
        dtype = tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()
        return cls(is_numpy, dtype, tensor.device, tuple(lead))

    @classmethod
    def of_actions(cls, actions: Any, axes: tuple[int, ...]) -> "Edge":
        """Describe actions [..., H, *axes], for any horizon H."""
        shape = tuple(to_tensor(actions, name="actions").shape)
        split = len(shape) - len(axes)
        if split < 1 or shape[split:] != axes or shape[split - 1] == 0:
            wanted = ", ".join(["...", "H", *map(str, axes)])
            raise DataError(f"actions must have the shape ({wanted}) with H >= 1, got {shape}")
        return cls.of(actions, "actions", shape[split - 1 :])

    def check_lead(self, name: str, other: "Edge") -> None:
        """Refuse an array whose leading axes are not these: its rows would be others' partners.

        Raises:
            DataError: If they differ.
        """
        if other.lead != self.lead:
            raise DataError(
                f"obs and {name} must have the same leading axes, got {self.lead} and {other.lead}"
            )

    def leave(self, tensor: Tensor) -> Any:
        """Give a result [B, ...] the caller's kind, type, device and leading shape."""
        return self.cast(tensor.unflatten(0, self.lead) if self.lead else tensor.squeeze(0))

    def cast(self, array: Any) -> Any:
        """Give an array of any shape the caller's kind, type and device."""
        tensor = to_tensor(array)
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        if self.numpy:
            return tensor.detach().to("cpu", dtype).numpy()
        return tensor.to(self.device, dtype)


def to_tensor(array: Any, device: torch.device | None = None, name: str = "the array") -> Tensor:
    """Return a numpy array, a torch tensor or a nested list as a tensor, copied if it must be.

    Args:
        array: What is to be a tensor.
        device: Where it is to be, or None for where it is.
        name: Name of the argument, for the error.

    Raises:
        DataError: If it is no array of numbers.
    """
    if not isinstance(array, Tensor):
        array = _numbers(array, name)
        # torch warns of arrays that it could write to, and refuses reversed ones.
        if not array.flags.writeable or min(array.strides, default=0) < 0:
            array = array.copy()
    return torch.as_tensor(array, device=device)


def _numbers(given: Any, name: str) -> np.ndarray:
    """Return an array of a type that torch has, in the order of bytes that it can read."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise DataError(f"{name} must be an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > _WIDEST:
        raise DataError(
            f"{name} must be an array of numbers, got {type(given).__name__} of type {array.dtype}"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def enter(array: Any, name: str, axes: int, like: Tensor, choices: int | None = None) -> Tensor:
    """Bring an array to the model's device and floating type, leading axes flattened to B.

    Args:
        array: numpy array, torch tensor or nested list.
        name: Name of the argument, for the error.
        axes: Number of trailing axes to keep.
        like: Parameter of the model.
        choices: If the array holds indices, how many there are to choose from.

    Returns:
        A tensor [B, ...]; int64 if it holds indices.

    Raises:
        DataError: If a value is NaN, infinite, or an index that does not exist.
    """
    tensor = to_tensor(array, like.device, name)
    tensor = tensor.reshape(-1, *tensor.shape[tensor.ndim - axes :])
    # As the model will see it: a number may be finite in float64 alone.
    seen = tensor.to(like.dtype)
    if not bool(torch.isfinite(seen).all()):
        raise DataError(
            f"{name} holds NaN or infinite values, or numbers beyond the range of {like.dtype}; "
            "the model predicts from finite ones"
        )
    if choices is None:
        return seen
    index = tensor.long()
    # Of unsigned integers torch compares no more than these bytes; fractions are those of floats.
    wrong = (index < 0) | (index >= choices)
    if tensor.is_floating_point():
        wrong |= index != tensor
    if bool(wrong.any()):
        raise DataError(f"{name} must hold integers in 0..{choices - 1}, got {tensor[wrong][0]}")
    return index
