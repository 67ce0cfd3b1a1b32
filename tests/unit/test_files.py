"""Files by URI: nothing leaves the root, nothing is half written, nothing secret is said."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from spark_rl.errors import UserError
from spark_rl.files import Root, is_temporary, open_root, redact


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    if request.param == "local":
        return open_root(str(tmp_path / "run"))
    pytest.importorskip("fsspec")
    return open_root(f"memory://{tmp_path.name}/run")


def test_what_is_written_is_read_listed_and_deleted(root: Root) -> None:
    assert not root.exists()
    assert root.names("a/b") == []
    assert root.sizes("a/b") == {}
    root.write("a/b/x.bin", b"12345")
    root.write("a/b/x.bin", pa.py_buffer(b"1234"))
    root.write("a/y.bin", b"")
    assert root.read("a/b/x.bin") == b"1234"
    assert root.names("a") == ["b", "y.bin"]
    assert root.sizes("a/b") == {"x.bin": 4}
    assert root.exists("a/b")
    root.delete("a/b/x.bin")
    root.delete("a/b/x.bin")  # nothing happens
    root.delete("a")
    assert not root.exists("a/y.bin")
    with pytest.raises(FileNotFoundError):
        root.read("a/y.bin")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a\\..\\x", "..", "a/.."])
def test_a_path_that_leaves_the_root_is_refused(path: str, tmp_path: Path) -> None:
    root = open_root(str(tmp_path / "run"))
    for method in (root.read, root.exists, root.names, root.delete, root.locate):
        with pytest.raises(ValueError, match="is not a path inside"):
            method(path)
    with pytest.raises(ValueError, match="is not a path inside"):
        root.write(path, b"")


def test_a_failed_write_leaves_the_old_file_and_a_file_that_spark_does_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = open_root(str(tmp_path))
    root.write("t/part.parquet", b"old")

    class Full:
        """A disk that is full after two bytes."""

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def write(self, content: bytes) -> None:
            raise OSError("no space left on device")

    class Disk(fs.LocalFileSystem):
        def open_output_stream(self, path: str, *args: Any, **kwargs: Any) -> Any:
            Path(path).write_bytes(b"ne")
            return Full()

    full = Root(root.uri, Disk(), root.path, has_rename=True)
    with pytest.raises(OSError, match="no space left"):
        full.write("t/part.parquet", b"new content")
    assert root.read("t/part.parquet") == b"old"
    (left,) = set(root.names("t")) - {"part.parquet"}
    assert is_temporary(left)
    assert left.startswith(".")  # Spark and pyarrow's datasets skip names with a dot or an underscore in front
    assert not is_temporary("part.parquet")


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    root, seen, stop = open_root(str(tmp_path)), set(), threading.Event()
    contents = [bytes([65 + i]) * 300_000 for i in range(2)]
    root.write("x", contents[0])

    def look() -> None:
        while not stop.is_set():
            seen.add(root.read("x"))

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(60):
        root.write("x", contents[i % 2])
    stop.set()
    reader.join()
    assert seen <= set(contents)
    assert root.names() == ["x"]


def test_a_directory_is_renamed_as_one(tmp_path: Path) -> None:
    root = open_root(str(tmp_path))
    root.write("staged/a", b"1")
    root.write("staged/b", b"2")
    root.rename("staged", "out/there")
    assert root.sizes("out/there") == {"a": 1, "b": 1}
    assert not root.exists("staged")


@pytest.mark.parametrize(
    ("uri", "path"),
    [("/tmp/a/../b/", "/tmp/b"), ("file:///tmp/a%20b", "/tmp/a b"), ("~/x", os.path.expanduser("~/x"))],
)
def test_local_paths_are_made_absolute(uri: str, path: str) -> None:
    root = open_root(uri)
    assert (root.path, root.uri, root.has_rename) == (path, path, True)
    assert isinstance(root.filesystem, fs.LocalFileSystem)


def test_a_relative_path_is_absolute_for_the_executors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_root("runs/x").uri == str(tmp_path / "runs/x")


def test_only_known_file_systems_are_trusted_with_renames() -> None:
    pytest.importorskip("fsspec")
    assert not open_root("memory://x").has_rename
    assert not open_root("s3://user:secret@bucket/run?region=eu-west-1").has_rename


@pytest.mark.parametrize(("uri", "complaint"), [("nope://x/y", "nope"), ("hdfs://host:1/x", "(?i)hdfs|libjvm|class")])
def test_what_cannot_be_reached_is_one_line(uri: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        open_root(uri)
    assert "install the backend" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://KEY:SECRET@bucket/a", "s3://***@bucket/a"),
        ("s3://KEY:SEC@RET@bucket/a", "s3://***@bucket/a"),
        ("s3://KEY:SEC/RET@bucket/a", "s3://***@bucket/a"),
        ("s3://bucket/a?secret_key=SECRET&region=x", "s3://bucket/a?secret_key=***&region=x"),
        ("abfs://b@account.dfs.core.windows.net/a?sig=SECRET", "abfs://***@account.dfs.core.windows.net/a?sig=***"),
        ("hdfs://host:8020/a@b", "hdfs://host:8020/a@b"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("/local/path@x", "/local/path@x"),
    ],
)
def test_credentials_are_not_shown(uri: str, shown: str) -> None:
    assert redact(uri) == shown


def test_credentials_stay_out_of_messages_and_of_repr() -> None:
    root = open_root("s3://KEY:SECRET@bucket/run?region=eu-west-1")
    with pytest.raises(ValueError, match="inside") as caught:
        root.locate("../x")
    for text in (repr(root), str(caught.value), root.name):
        assert "SECRET" not in text
    with pytest.raises(UserError) as refused:
        open_root("nope://KEY:SECRET@host/x")
    assert "SECRET" not in str(refused.value)
