"""A cell that several models share: its part of their weights, its place in their files."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from loopwm.files import Tree

CELL = "shared-cell"
"""Name under which the tensors of a shared cell lie in a tree, once for all models that use it."""


def share_of(model: nn.Module, cell: nn.Module, tables: Collection[Tensor] = ()) -> float:
    """Return the share of a model's parameters, tables of embeddings left out, that is a cell's.

    Args:
        model: The model.
        cell: The cell; what the model does not hold by the same storage does not count.
        tables: Embeddings, which count neither as shared nor as the model's own.
    """
    left_out = {id(table) for table in tables}
    counted = {p.data_ptr(): p.numel() for p in model.parameters() if id(p) not in left_out}
    shared = {p.data_ptr(): p.numel() for p in cell.parameters()}
    return sum(n for place, n in shared.items() if place in counted) / sum(counted.values())


def stored_weights(tree: Tree, name: str, place: str) -> dict[str, Tensor]:
    """Return the weights that a tree holds of a model, those of a shared cell among them.

    Args:
        tree: What was read.
        name: Under which the model's tensors were written.
        place: Dotted name of the cell in the model.

    Raises:
        StoreError: If the tree holds no such tensors.
    """
    own: Mapping[str, np.ndarray] = tree.tensors(name)
    shared = {f"{place}.{key}": array for key, array in tree.arrays.get(CELL, {}).items()}
    return {key: torch.as_tensor(array) for key, array in {**own, **shared}.items()}
