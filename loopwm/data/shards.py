"""The store on disk: a directory of safetensors shards with a checksummed JSON manifest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loopwm.errors import StoreError
from loopwm.files import read_tree, write_tree

SCHEMA = 2
SHARD_BYTES = 64 * 2**20
_KIND = "loopwm dataset"


def write_shards(
    path: Path,
    columns: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write columns of equal length and their description as one directory, atomically.

    Args:
        path: The directory to make, or an earlier dataset to replace.
        columns: Arrays [N,...] by name.
        meta: JSON object that describes them.
        shard_bytes: Most bytes of tensors in a file; a single row may be larger.
    """
    rows = len(next(iter(columns.values())))
    row_bytes = sum(column.nbytes for column in columns.values()) / rows
    step = max(1, int(shard_bytes / row_bytes))
    tensors = {
        f"shard-{number:05d}": {
            name: np.ascontiguousarray(column[start : start + step])
            for name, column in columns.items()
        }
        for number, start in enumerate(range(0, rows, step))
    }
    document = {"kind": _KIND, "schema": SCHEMA, "rows": rows, "shards": sorted(tensors)}
    write_tree(Path(path), tensors, {"dataset": {**document, "meta": dict(meta)}})


def read_shards(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read and verify what `write_shards` wrote.

    Returns:
        The columns by name, and the JSON object that describes them.

    Raises:
        StoreError: If the directory is missing, damaged, no dataset, or of a newer format.
    """
    tree = read_tree(Path(path))
    document = tree.documents.get("dataset")
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise StoreError(f"{path} is not a dataset; it holds {sorted(tree.documents)}")
    if document.get("schema") != SCHEMA:
        raise StoreError(
            f"{path} has dataset format {document.get('schema')}, this version reads {SCHEMA}; "
            "install the version of loopwm that wrote it, or a newer one"
        )
    shards = [tree.tensors(name) for name in document["shards"]]
    names = set(shards[0])
    if any(set(shard) != names for shard in shards):
        raise StoreError(f"{path}: the shards do not hold the same columns")
    columns = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    for name, column in columns.items():
        if len(column) != document["rows"]:
            raise StoreError(f"{path}: {name} has {len(column)} rows of {document['rows']}")
    return columns, document["meta"]
