"""The edge between the user's arrays and the model: numpy or torch in, the same out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopwm.errors import DataError

Array = np.ndarray | Tensor


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

    @classmethod
    def of(cls, array: Any, name: str, last: tuple[int, ...]) -> "Edge":
        """Describe an array whose trailing axes must be `last`.

        Raises:
            DataError: If the trailing axes differ or a value is not finite.
        """
        is_numpy = not isinstance(array, Tensor)
        tensor = torch.as_tensor(array)
        lead = tensor.shape[: tensor.ndim - len(last)]
        if tensor.ndim < len(last) or tuple(tensor.shape[len(lead) :]) != last:
            raise DataError(f"{name} must end in the axes {last}, got shape {tuple(tensor.shape)}")
        dtype = tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()
        return cls(is_numpy, dtype, tensor.device, tuple(lead))

    @classmethod
    def of_actions(cls, actions: Any, axes: tuple[int, ...]) -> "Edge":
        """Describe actions [..., H, *axes], for any horizon H."""
        shape = tuple(torch.as_tensor(actions).shape)
        split = len(shape) - len(axes)
        if split < 1 or shape[split:] != axes:
            wanted = ", ".join(["...", "H", *map(str, axes)])
            raise DataError(f"actions must have the shape ({wanted}), got {shape}")
        return cls.of(actions, "actions", shape[split - 1 :])

    def leave(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Any:
        """Give a result [B, ...] the caller's kind, type, device and leading shape."""
        if dtype is None:
            dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        tensor = tensor.unflatten(0, self.lead) if self.lead else tensor.squeeze(0)
        if self.numpy:
            return tensor.detach().to("cpu", dtype).numpy()
        return tensor.to(self.device, dtype)


def enter(array: Any, name: str, axes: int, like: Tensor) -> Tensor:
    """Bring an array to the model's device and floating type, leading axes flattened to B.

    Args:
        array: numpy array, torch tensor or nested list.
        name: Name of the argument, for the error.
        axes: Number of trailing axes to keep.
        like: Parameter of the model; integer arrays keep an integer type.

    Returns:
        A tensor [B, ...].

    Raises:
        DataError: If a value is NaN or infinite.
    """
    tensor = torch.as_tensor(array, device=like.device)
    tensor = tensor.long() if not tensor.is_floating_point() else tensor.to(like.dtype)
    tensor = tensor.reshape(-1, *tensor.shape[tensor.ndim - axes :])
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{name} holds NaN or infinite values; the model predicts from finite ones")
    return tensor
