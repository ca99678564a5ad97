"""What a saved tree is: told by the names of its documents, so that nothing else replaces it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loopwm.errors import StoreError
from loopwm.files.single import MAX_JSON_BYTES, parse_json, read_regular

MANIFEST = "manifest.json"
FORMAT = "loopwm.tree"

# Of a pair of models that share a core both names stand in one tree.
_KINDS = {
    frozenset({"dataset"}): "a dataset",
    frozenset({"model"}): "a world model",
    frozenset({"reasoner"}): "a reasoner",
    frozenset({"model", "reasoner"}): "a world model and a reasoner that share a core",
    frozenset({"progress"}): "a checkpoint",
    frozenset({"learner"}): "a checkpoint of an agent",
}
_MARKS = frozenset[str]().union(*_KINDS)


def kind_of(documents: Iterable[str]) -> str:
    """Return what a tree with documents of these names is, in words."""
    return _KINDS.get(_MARKS & set(documents), "something else that was saved")


def kind_at(path: Path | str) -> str | None:
    """Return what tree is at a path, in words; None if there is none, or none that can be read.

    Raises:
        StoreError: If a manifest is there that is not the one of a tree, or cannot be read.
    """
    manifest = Path(path) / MANIFEST
    if not manifest.is_file():
        return None
    raw = read_regular(manifest, MAX_JSON_BYTES)
    found: Any = {}
    try:
        found = parse_json(raw, manifest)
        # Of an empty one nothing can be lost.
        ours = not found or (isinstance(found, dict) and found.get("format") == FORMAT)
    except StoreError:
        # Damaged, if it was ours: saving again is the remedy.
        ours = not raw or f'"{FORMAT}"'.encode() in raw
    if not ours:
        raise StoreError(
            f"{manifest} is not the manifest of a saved tree, and will not be replaced: choose "
            "another folder"
        )
    documents = found.get("documents") if isinstance(found, dict) else None
    return kind_of(documents) if isinstance(documents, dict) else None


def refuse_other_kind(path: Path | str, documents: Iterable[str]) -> None:
    """Refuse to put a tree where there is one of another kind, which would be lost.

    Args:
        path: The directory.
        documents: Names of the documents that are to be written.

    Raises:
        StoreError: If something else is there; it names both and the remedy.
    """
    there, new = kind_at(path), kind_of(documents)
    if there not in (None, new):
        raise StoreError(
            f"{path} holds {there}, which {new} would replace: choose another folder, or remove "
            "what is there first"
        )
