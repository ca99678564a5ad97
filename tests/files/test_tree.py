import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import numpy as safetensors_numpy

from loopwm.errors import StoreError
from loopwm.files import Tree, read_tree, tree_exists, write_tree

DTYPES = ["bool", "int8", "int64", "uint16", "float16", "float32", "float64", ">i4", ">f8"]


def save(path: Path, step: int) -> None:
    write_tree(path, {"weights": {"w": np.full(64, float(step))}}, {"state": {"step": step}})


def files_in(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(path.iterdir())}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(tmp_path / "tree", 1)
    return tmp_path / "tree"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(max_size=20),
        hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, min_side=0)),
        max_size=5,
    )
)
def test_every_array_reads_back_with_its_shape_dtype_and_bits(
    tmp_path: Path, arrays: dict[str, np.ndarray]
):
    write_tree(tmp_path / "t", {"a": arrays}, {})
    back = read_tree(tmp_path / "t").tensors("a")
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].shape == array.shape
        assert back[key].dtype == array.dtype.newbyteorder("<")
        assert back[key].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


def test_transposed_and_strided_arrays_read_back_as_they_looked(tmp_path: Path):
    array = np.arange(24.0).reshape(4, 6)
    write_tree(tmp_path / "t", {"a": {"t": array.T, "s": array[::2, ::-3]}}, {})
    back = read_tree(tmp_path / "t").tensors("a")
    np.testing.assert_array_equal(back["t"], array.T)
    np.testing.assert_array_equal(back["s"], array[::2, ::-3])


def test_arrays_that_were_read_can_be_written_to(saved: Path):
    array = read_tree(saved).tensors("weights")["w"]
    array += 1
    assert array[0] == 2


def test_equal_content_gives_equal_bytes(tmp_path: Path):
    save(tmp_path / "a", 3)
    save(tmp_path / "b", 3)
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")


def test_replacing_a_tree_leaves_only_the_new_one_and_foreign_files(saved: Path):
    (saved / "notes.txt").write_text("mine")
    (saved / "weights.safetensors").write_text("mine too")
    save(saved, 2)
    assert read_tree(saved).documents["state"]["step"] == 2
    assert len(files_in(saved)) == 4
    assert (saved / "notes.txt").read_text() == "mine"


def test_a_path_without_a_tree_is_said_to_hold_none(tmp_path: Path):
    assert not tree_exists(tmp_path / "none")
    with pytest.raises(StoreError, match=r"none holds nothing that was saved"):
        read_tree(tmp_path / "none")


def test_asking_for_tensors_that_are_not_there_names_those_that_are(saved: Path):
    with pytest.raises(StoreError, match=r"no tensors 'optimiser', only \['weights'\]"):
        read_tree(saved).tensors("optimiser")


# Damage


def test_one_flipped_bit_in_any_byte_is_detected(saved: Path):
    for name, content in files_in(saved).items():
        for offset in range(len(content)):
            flipped = bytearray(content)
            flipped[offset] ^= 1 << (offset % 8)
            (saved / name).write_bytes(flipped)
            with pytest.raises(StoreError, match="tree"):
                read_tree(saved)
        (saved / name).write_bytes(content)
    assert read_tree(saved).documents["state"]["step"] == 1


def test_a_file_cut_short_anywhere_is_detected(saved: Path):
    for name, content in files_in(saved).items():
        for part in range(64):
            (saved / name).write_bytes(content[: len(content) * part // 64])
            with pytest.raises(StoreError):
                read_tree(saved)
        (saved / name).write_bytes(content)


def test_a_missing_tensor_file_is_detected(saved: Path):
    next(saved.glob("*.safetensors")).unlink()
    with pytest.raises(StoreError, match=r"weights\..*No such file"):
        read_tree(saved)


def test_a_tree_of_a_later_schema_is_refused_with_both_numbers(saved: Path):
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps({**manifest, "schema": 2}))
    with pytest.raises(StoreError, match="has schema 2, this version reads 1"):
        read_tree(saved)


def test_a_foreign_manifest_is_refused(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"name": "a web application"}')
    with pytest.raises(StoreError, match="not the manifest of a saved tree"):
        read_tree(tmp_path)


def forge(path: Path, name: str, data: bytes) -> None:
    """Write a tree whose checksums are right and whose content is not."""
    digest = hashlib.sha256(data).hexdigest()
    path.mkdir()
    forge_manifest(path, {name: {"bytes": len(data), "sha256": digest}})
    (path / f"{name}.{digest[:16]}.safetensors").write_bytes(data)


def forge_manifest(path: Path, files: dict[str, object]) -> None:
    body = {"documents": {}, "files": files}
    digest = hashlib.sha256((json.dumps(body, indent=1) + "\n").encode()).hexdigest()
    manifest = {"format": "loopwm.tree", "schema": 1, "sha256": digest, **body}
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def test_the_forger_of_these_tests_forges_well(tmp_path: Path):
    forge(tmp_path / "t", "a", safetensors_numpy.save({"x": np.ones(3)}))
    assert read_tree(tmp_path / "t").tensors("a")["x"].sum() == 3


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/b", "", ".hidden", "a\0b"])
def test_a_manifest_cannot_name_files_outside_the_tree(tmp_path: Path, name: str):
    forge_manifest(tmp_path, {name: {"bytes": 1, "sha256": "0" * 64}})
    with pytest.raises(StoreError, match="malformed"):
        read_tree(tmp_path)


@pytest.mark.parametrize(
    "entry", [None, 1, {}, {"bytes": "1", "sha256": "0" * 64}, {"bytes": 1, "sha256": "../x"}]
)
def test_a_malformed_entry_of_the_manifest_is_refused(tmp_path: Path, entry: object):
    forge_manifest(tmp_path, {"a": entry})
    with pytest.raises(StoreError, match="the entry of 'a' is malformed"):
        read_tree(tmp_path)


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "damaged"),
        (b"\xff" * 8, "header claims"),
        ((9 * 2**20).to_bytes(8, "little") + b" " * 9 * 2**20, "header claims"),
        (header(b"[]"), "damaged"),
        (header(b"7"), "damaged"),
        (header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'), "damaged"),
        (header(b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}') + b"xx", "damaged"),
        (header(b'{"a":{},"a":{}}'), "a key is repeated"),
        (
            safetensors_numpy.save({str(i): np.zeros(0) for i in range(20_001)}),
            "more than 20000 arrays",
        ),
    ],
)
def test_a_tensor_file_beyond_the_format_or_the_limits_is_refused(
    tmp_path: Path, data: bytes, cause: str
):
    forge(tmp_path / "t", "a", data)
    with pytest.raises(StoreError, match=cause):
        read_tree(tmp_path / "t")


def test_a_tensor_file_that_is_a_link_is_refused(saved: Path, tmp_path: Path):
    file = next(saved.glob("*.safetensors"))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot read"):
        read_tree(saved)


# Refusals in writing


@pytest.mark.parametrize("name", ["../up", "a/b", "/root", "", ".", "..", "a\0", "x" * 101])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str):
    with pytest.raises(StoreError, match="is no file name"):
        write_tree(tmp_path / "t", {name: {}}, {})
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([object()]), np.array([1 + 1j])])
def test_an_array_that_cannot_be_stored_is_refused_and_the_old_tree_stays(
    saved: Path, array: np.ndarray
):
    before = files_in(saved)
    with pytest.raises(StoreError, match=r"'bad' of 'weights' .* cannot be stored"):
        write_tree(saved, {"other": {"w": np.ones(3)}, "weights": {"bad": array}}, {})
    assert files_in(saved) == before


def test_a_document_with_nan_is_refused_and_the_old_tree_stays(saved: Path):
    before = files_in(saved)
    with pytest.raises(StoreError, match="cannot be written as JSON"):
        write_tree(saved, {"weights": {"w": np.ones(3)}}, {"metrics": {"loss": float("nan")}})
    assert files_in(saved) == before


# Failures of the file system


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(
    ("call", "count"), [("write", 2), ("fsync", 4), ("replace", 2), ("close", 2)]
)
def test_every_system_call_of_a_save_may_fail_and_the_old_tree_stays_whole(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str, count: int, code: int
):
    before = files_in(saved)
    owner = Path if call == "replace" else os
    genuine = getattr(owner, call)
    for failing in range(count):
        calls = iter(range(100))

        def fail(*args: object, at: int = failing, calls: Iterator[int] = calls) -> object:
            if next(calls) == at:
                if call == "close":
                    genuine(*args)
                raise OSError(code, os.strerror(code))
            return genuine(*args)

        with monkeypatch.context() as patch:
            patch.setattr(owner, call, fail)
            with pytest.raises(StoreError, match=r"cannot write .*tree"):
                save(saved, 2)
        if read_tree(saved).documents["state"]["step"] == 1:
            assert files_in(saved) == before
        else:  # only the sync after the rename failed: whole, but not promised to be durable
            assert (call, failing) == ("fsync", 3)
            save(saved, 1)


def test_content_is_synced_before_it_is_named_and_names_before_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        log.append("fsync " + (name if name.startswith(".") else "directory"))
        fsync(descriptor)

    def logged_replace(self: Path, target: Path) -> Path:
        log.append(f"rename {target.name}")
        return replace(self, target)

    (tmp_path / "tree").mkdir()
    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    save(tmp_path / "tree", 1)
    # Letters and digits that differ from run to run are cut off.
    assert [line.split(".tmp")[0] for line in log] == [
        f"fsync .{next((tmp_path / 'tree').glob('*.safetensors')).name}",
        f"rename {next((tmp_path / 'tree').glob('*.safetensors')).name}",
        "fsync .manifest.json",
        "fsync directory",
        "rename manifest.json",
        "fsync directory",
    ]


def test_what_a_killed_writer_left_is_swept_by_the_next_save(saved: Path):
    left = [
        ".manifest.json.tmp-0123456789ab",
        ".weights.0123456789abcdef.safetensors.tmp-0123456789ab",
        "weights.0123456789abcdef.safetensors",
    ]
    for name in left:
        (saved / name).touch()
    (saved / ".other.json.tmp-0123456789ab").touch()
    save(saved, 2)
    names = files_in(saved).keys()
    assert not names & set(left)
    assert ".other.json.tmp-0123456789ab" in names


# Several processes and threads


def test_a_reader_beside_a_writer_sees_one_save_or_the_other(saved: Path):
    stop = threading.Event()

    def write_on() -> None:
        step = 1
        while not stop.is_set():
            save(saved, step := step + 1)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        seen = [read_tree(saved) for _ in range(200)]
    finally:
        stop.set()
        writer.join()
    assert all(agrees(tree) for tree in seen)
    steps = [tree.documents["state"]["step"] for tree in seen]
    assert steps == sorted(steps)


def agrees(tree: Tree) -> bool:
    return bool((tree.tensors("weights")["w"] == tree.documents["state"]["step"]).all())


def test_two_writers_leave_one_whole_tree(tmp_path: Path):
    def write_some(first: int) -> None:
        for step in range(first, first + 40):
            save(tmp_path / "tree", step)

    writers = [threading.Thread(target=write_some, args=(n,)) for n in (0, 1000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert agrees(read_tree(tmp_path / "tree"))
    assert len(files_in(tmp_path / "tree")) == 2
