"""The memory that automatic differentiation keeps for a backward pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

MIB = 2.0**20


def saved_bytes(function: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Count the bytes that autograd keeps for the backward pass of what a function returns.

    A storage that several tensors share is counted once, and a parameter's not at all.

    Args:
        function: Computes something that has a gradient.
        parameters: Tensors that are in memory anyway.
    """
    held = {each.untyped_storage().data_ptr() for each in parameters}
    with _noted() as storages:
        result = function()
    found = {place: size for place, size in storages.items() if place not in held}
    del result  # The graph must live until its storages are counted, or places are used again.
    return sum(found.values())


@contextmanager
def _noted() -> Iterator[dict[int, int]]:
    """Note address and bytes of each storage that autograd saves while the block runs."""
    sizes: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    same: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731 - typed
    with torch.autograd.graph.saved_tensors_hooks(save, same):
        yield sizes
