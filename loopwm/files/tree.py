"""Trees: directories of arrays and JSON that a crash leaves old or new, and whole.

A tree is a directory with one `manifest.json`, which holds the JSON documents and the size and
SHA-256 of every tensor file. A tensor file carries its checksum in its name and is never changed;
replacing the manifest, one rename, is what replaces a tree. So at every moment, also after a
crash, the manifest in place names files that are whole, and foreign files are left alone.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from loopwm.errors import StoreError
from loopwm.files.kind import FORMAT, MANIFEST, refuse_other_kind
from loopwm.files.single import (
    MAX_JSON_BYTES,
    damaged,
    dump_json,
    make_directory,
    parse_json,
    read_regular,
    reported,
    sync_directory,
    write_temporary,
)

SCHEMA = 1
MAX_HEADER_BYTES = 8 * 2**20
MAX_TENSORS = 20_000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TENSOR_FILE = re.compile(rf"{_NAME.pattern}\.([0-9a-f]{{16}})\.safetensors")
_TEMPORARY = re.compile(rf"\.({MANIFEST}|{_TENSOR_FILE.pattern})\.tmp-[0-9a-f]+")
_DTYPES = (
    *("bool", "complex64", "float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)
_READ_ATTEMPTS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """Hold what `read_tree` read and verified.

    Attributes:
        path: The directory.
        documents: The JSON documents by name.
        arrays: The writable arrays of every tensor file, by the file's name.
    """

    path: Path
    documents: dict[str, Any]
    arrays: dict[str, dict[str, np.ndarray]]

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays that were written under `name`.

        Raises:
            StoreError: If the tree holds no such tensors.
        """
        if name not in self.arrays:
            raise StoreError(
                f"{self.path} holds no tensors {name!r}, only {sorted(self.arrays)}; "
                "was it saved by something else?"
            )
        return self.arrays[name]


def write_tree(
    path: Path | str,
    tensors: Mapping[str, Mapping[str, np.ndarray]],
    documents: Mapping[str, Any],
) -> None:
    """Write a directory of arrays and JSON so that a crash leaves the old or the new, whole.

    Args:
        path: The directory; it is made, with its parents, or its tree is replaced, but never by
            one of another kind (see `loopwm.files.kind`). Files in it that are not part of a tree
            stay.
        tensors: Arrays to write, grouped into one file per name.
        documents: JSON values by name; NaN is not JSON.

    Raises:
        StoreError: If something cannot be stored, a tree of another kind is there, or the file
            system fails; a tree that was at `path` before is then still there.
    """
    path = Path(path)
    for name in [*tensors, *documents]:
        if not _NAME.fullmatch(name):
            raise StoreError(f"{name!r} is no file name: use letters, digits, '_', '-' and '.'")
    with reported("write", path):
        make_directory(path)
        with _locked(path):
            refuse_other_kind(path, documents)
            try:
                files = {n: _write_tensors(path, n, arrays) for n, arrays in tensors.items()}
                manifest = write_temporary(path / MANIFEST, _manifest(path, documents, files))
                sync_directory(path)
                manifest.replace(path / MANIFEST)
                sync_directory(path)
            finally:
                _sweep(path)


def read_tree(path: Path | str) -> Tree:
    """Read a directory that `write_tree` wrote and verify every byte of it.

    Raises:
        StoreError: If there is no tree, or any part is missing, damaged or beyond the limits.
    """
    path = Path(path)
    if not tree_exists(path):
        raise StoreError(
            f"{path} holds nothing that was saved (no {MANIFEST}); check the path, or save again "
            "if the first save was interrupted; of a run's checkpoints, model.save(path) makes "
            "something that can be read"
        )
    for _ in range(_READ_ATTEMPTS):
        raw = read_regular(path / MANIFEST, MAX_JSON_BYTES)
        try:
            return _parse_tree(path, raw)
        except StoreError:
            # A writer may have replaced the tree between our reading of two of its files.
            if read_regular(path / MANIFEST, MAX_JSON_BYTES) == raw:
                raise
    raise StoreError(f"{path} is being replaced faster than it can be read; try again")


def tree_exists(path: Path | str) -> bool:
    """Tell whether a tree was written to `path`; its files are not verified."""
    with reported("read", Path(path)):
        return (Path(path) / MANIFEST).is_file()


def _manifest(path: Path, documents: Mapping[str, Any], files: dict[str, Any]) -> bytes:
    body = {"documents": dict(documents), "files": files}
    digest = hashlib.sha256(dump_json(body, f"a document for {path}")).hexdigest()
    whole = {"format": FORMAT, "schema": SCHEMA, "sha256": digest, **body}
    return dump_json(whole, str(path))


def _parse_tree(path: Path, raw: bytes) -> Tree:
    manifest = parse_json(raw, path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{path / MANIFEST} is not the manifest of a saved tree; check the path")
    if manifest.get("schema") != SCHEMA:
        raise StoreError(
            f"{path} has schema {manifest.get('schema')!r}, this version reads {SCHEMA}; "
            "read it with the version of loopwm that wrote it"
        )
    documents, files = manifest.get("documents"), manifest.get("files")
    # Equal bytes prove more than an equal digest: no repeated keys, no foreign whitespace.
    if not (isinstance(documents, dict) and isinstance(files, dict)) or raw != _manifest(
        path, documents, files
    ):
        raise damaged(path / MANIFEST, "its checksum differs")
    return Tree(path, documents, {n: _read_tensors(path, n, entry) for n, entry in files.items()})


def _write_tensors(path: Path, name: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    # Not `ascontiguousarray`, which turns a scalar into a vector. safetensors itself stores a
    # transposed array wrongly, without a word.
    arrays = {key: np.asarray(value, order="C") for key, value in tensors.items()}
    for key, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise StoreError(
                f"array {key!r} of {name!r} for {path} has dtype {array.dtype}, which cannot be "
                f"stored; convert it to one of {sorted(_DTYPES)}"
            )
    if len(arrays) > MAX_TENSORS:
        raise StoreError(f"{name!r} for {path} has {len(arrays)} arrays, over {MAX_TENSORS}")
    data = safetensors_numpy.save(arrays)
    digest = hashlib.sha256(data).hexdigest()
    target = path / _file_name(name, digest)
    write_temporary(target, data).replace(target)
    return {"bytes": len(data), "sha256": digest}


def _read_tensors(path: Path, name: str, entry: Any) -> dict[str, np.ndarray]:
    match entry:
        case {"bytes": int(size), "sha256": str(digest)}:
            pass
        case _:
            size, digest = 0, ""
    if not (_NAME.fullmatch(name) and _DIGEST.fullmatch(digest)):
        raise damaged(path / MANIFEST, f"the entry of {name!r} is malformed")
    file = path / _file_name(name, digest)
    data = read_regular(file, size)
    if hashlib.sha256(data).hexdigest() != digest:
        raise damaged(file, "its checksum differs")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise damaged(file, f"its header claims {length} bytes")
    try:
        if len(parse_json(data[8 : 8 + length], file)) > MAX_TENSORS:
            raise damaged(file, f"it holds more than {MAX_TENSORS} arrays")
        return safetensors_numpy.load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise damaged(file, str(error)) from error


def _file_name(name: str, digest: str) -> str:
    return f"{name}.{digest[:16]}.safetensors"


def _sweep(path: Path) -> None:
    """Remove what interrupted writers left behind and what the manifest does not name."""
    with suppress(OSError, StoreError):
        manifest = read_regular(path / MANIFEST, MAX_JSON_BYTES) if tree_exists(path) else b""
        for file in list(path.iterdir()):
            match = _TENSOR_FILE.fullmatch(file.name)
            unnamed = match and match[1].encode() not in manifest
            if unnamed or _TEMPORARY.fullmatch(file.name):
                file.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The lock only keeps two writers from sweeping each other's files; the kernel frees it
        # when a writer dies. Some network file systems have none for directories.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
