import errno
import os
import stat
import time
from pathlib import Path

import pytest

from loopwm.errors import StoreError
from loopwm.files import read_json, single, write_file, write_json


def test_a_written_json_value_reads_back_equal(tmp_path: Path):
    value = {"z": [1, 2.5, None, True, "é"], "a": {"nested": -0.0}}
    write_json(tmp_path / "new" / "deep" / "v.json", value)
    assert read_json(tmp_path / "new" / "deep" / "v.json") == value
    assert list(read_json(tmp_path / "new" / "deep" / "v.json")) == ["z", "a"]


def test_a_written_file_has_the_permissions_that_the_umask_allows(tmp_path: Path):
    old = os.umask(0o027)
    try:
        write_file(tmp_path / "f", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_short_writes_of_the_system_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
    write_file(tmp_path / "f", bytes(range(256)))
    assert (tmp_path / "f").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failing_system_call_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    write_file(tmp_path / "f", b"old")

    def fail(*args: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path if call == "replace" else os, call, fail)
    with pytest.raises(StoreError, match=r"cannot write .*f: Input/output error; .*untouched"):
        write_file(tmp_path / "f", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_a_full_disk_is_reported_with_the_bytes_that_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StoreError, match=r"No space left on device; make room \([\d,]+ bytes are"):
        write_file(tmp_path / "f", b"new")


def test_temporary_files_of_dead_writers_are_swept_and_young_ones_are_left(tmp_path: Path):
    old, young = tmp_path / ".f.tmp-0", tmp_path / ".f.tmp-1"
    for file in (old, young):
        file.touch()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    write_file(tmp_path / "f", b"x")
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"a": 1, "a": 2}', "a key is repeated"),
        ('{"a": ', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
    ],
)
def test_what_is_not_json_is_refused_with_the_path(tmp_path: Path, text: str | bytes, cause: str):
    file = tmp_path / "v.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StoreError, match=rf"v\.json is damaged: .*{cause}"):
        read_json(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": object()}, b"bytes"])
def test_what_cannot_be_json_is_refused_before_the_file_is_touched(tmp_path: Path, value: object):
    write_json(tmp_path / "v.json", 1)
    with pytest.raises(StoreError, match="cannot be written as JSON"):
        write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == 1


def test_links_pipes_and_directories_are_not_read(tmp_path: Path):
    (tmp_path / "secret.json").write_text("1")
    (tmp_path / "link.json").symlink_to(tmp_path / "secret.json")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "directory.json").mkdir()
    for name, why in (("link", ": links are not followed"), ("pipe", ""), ("directory", "")):
        with pytest.raises(StoreError, match=rf"{name}\.json{why}"):
            read_json(tmp_path / f"{name}.json")


@pytest.mark.parametrize("path", ["a\0b", "x" * 4096, "/dev/null/f"])
def test_impossible_paths_are_refused(path: str):
    with pytest.raises(StoreError, match="cannot write"):
        write_file(path, b"x")
    with pytest.raises(StoreError, match="cannot read"):
        read_json(path)


def test_more_json_than_can_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "MAX_JSON_BYTES", 100)
    path = tmp_path / "a.json"
    write_json(path, {"kept": 1})
    with pytest.raises(StoreError, match="100 is what can be read"):
        write_json(path, list(range(100)))
    assert read_json(path) == {"kept": 1}
