"""Files that survive a crash: atomic, fsynced, checksummed writing and checked reading."""

from loopwm.files.kind import kind_at, kind_of, refuse_other_kind
from loopwm.files.single import read_json, write_file, write_json
from loopwm.files.tree import Tree, read_tree, tree_exists, write_tree

__all__ = [
    "Tree",
    "kind_at",
    "kind_of",
    "read_json",
    "read_tree",
    "refuse_other_kind",
    "tree_exists",
    "write_file",
    "write_json",
    "write_tree",
]
