"""One way to reach files, wherever a run lives: a local path or any URI that pyarrow or fsspec understands.

Paths inside a run are relative, with forward slashes, and may not leave it. `hdfs://` goes through pyarrow where
libhdfs is installed; where it is not, `open_root` refuses with a clear line: that refusal is the one place where a
Hadoop FileSystem behind Spark will be plugged in.
"""

from __future__ import annotations

import ctypes
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from spark_rl.errors import UserError

# Where a rename is one operation. Elsewhere (object stores, and whatever is not known to us) it is a copy, so files get
# their final names at once and the commit record alone decides.
_WITH_RENAME = {"hdfs", "viewfs", "webhdfs", "sftp", "ssh", "smb"}


@dataclass(frozen=True, slots=True)
class Root:
    """A directory on some file system. Every method takes a path relative to it.

    `has_rename` says whether renaming a directory is one atomic operation there.
    """

    uri: str
    filesystem: fs.FileSystem
    path: str
    has_rename: bool

    @property
    def name(self) -> str:
        """The URI for people: without credentials."""
        return redact(self.uri)

    def __repr__(self) -> str:
        return f"Root({self.name!r})"

    def locate(self, relative: str) -> str:
        """The path on the file system; ValueError for one that would leave the root."""
        parts = relative.split("/")
        if relative.startswith("/") or ".." in parts or "\\" in relative:
            raise ValueError(f"{relative!r} is not a path inside {self.name}")
        return f"{self.path}/{relative}" if relative else self.path

    def exists(self, relative: str = "") -> bool:
        """Whether a file or directory is there."""
        return bool(self.filesystem.get_file_info(self.locate(relative)).type != fs.FileType.NotFound)

    def names(self, relative: str = "") -> list[str]:
        """Names of the files and directories directly inside a directory, sorted; [] where it does not exist."""
        return sorted(info.base_name for info in self._infos(relative))

    def sizes(self, relative: str) -> dict[str, int]:
        """Name -> bytes of the files directly inside a directory; {} where it does not exist."""
        return {info.base_name: info.size for info in self._infos(relative) if info.type == fs.FileType.File}

    def _infos(self, relative: str) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self.locate(relative), allow_not_found=True)
        return list(self.filesystem.get_file_info(selector))

    def read(self, relative: str) -> bytes:
        """The whole file; FileNotFoundError where it is missing."""
        with self.filesystem.open_input_file(self.locate(relative)) as stream:
            return bytes(stream.read())

    def write(self, relative: str, content: bytes | pa.Buffer) -> None:
        """Write a file so that readers see the old one, or none, or the whole new one; never a part of it."""
        self.make_parent(relative)
        if not self.has_rename:
            self._put(relative, content)  # an object appears when its upload is complete
            return
        # Unique, so that two attempts of one task never write into the same temporary file; and hidden from Spark,
        # because a killed attempt's may lie in a directory that is published.
        directory, _, name = relative.rpartition("/")
        temporary = f"{directory}/.{name}.{uuid.uuid4().hex}.tmp".removeprefix("/")
        self._put(temporary, content)
        self.filesystem.move(self.locate(temporary), self.locate(relative))

    def _put(self, relative: str, content: bytes | pa.Buffer) -> None:
        with self.filesystem.open_output_stream(self.locate(relative)) as stream:
            stream.write(content)

    def make_parent(self, relative: str) -> None:
        """Create the directory that a file will lie in."""
        self.filesystem.create_dir(self.locate(relative).rpartition("/")[0], recursive=True)

    def rename(self, source: str, target: str) -> None:
        """Move a file or directory to a name that is free."""
        self.make_parent(target)
        self.filesystem.move(self.locate(source), self.locate(target))

    def swap(self, one: str, other: str) -> None:
        """Exchange two directories; in one operation where the operating system has one (Linux, local files)."""
        if isinstance(self.filesystem, fs.LocalFileSystem) and _exchange(self.locate(one), self.locate(other)):
            return
        aside = f"{one}.{uuid.uuid4().hex}.aside"
        self.rename(other, aside)
        self.rename(one, other)
        self.rename(aside, one)

    def delete(self, relative: str) -> None:
        """Delete a file or a whole directory; nothing happens where there is none."""
        kind = self.filesystem.get_file_info(self.locate(relative)).type
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.locate(relative))
        elif kind != fs.FileType.NotFound:
            self.filesystem.delete_file(self.locate(relative))


def _exchange(one: str, other: str) -> bool:
    """renameat2 with RENAME_EXCHANGE; False where the C library or the file system has no such thing."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE; see renameat2(2)
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def open_root(uri: str) -> Root:
    """The directory that a path or URI names; it need not exist.

    Raises UserError for an unknown scheme or a file system that this machine cannot reach.
    """
    scheme = urlsplit(uri).scheme if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://", uri) else ""
    if scheme in ("", "file"):
        path = unquote(urlsplit(uri).path) if scheme else uri
        absolute = os.path.normpath(Path(path).expanduser().absolute())
        return Root(absolute, fs.LocalFileSystem(), absolute, has_rename=True)
    try:
        filesystem, path = _remote(uri, scheme)
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        raise UserError(
            where=f"location {redact(uri)}",
            got=redact(str(error).splitlines()[0]),
            wanted="a local path, or a URI that pyarrow (s3, gs, abfs, hdfs with libhdfs) or an installed fsspec "
            "backend can open",
            todo="install the backend, or use another location",
        ) from error
    return Root(uri, filesystem, path.rstrip("/"), has_rename=scheme in _WITH_RENAME)


def _remote(uri: str, scheme: str) -> tuple[fs.FileSystem, str]:
    # Hadoop's name for S3; pyarrow knows it as s3.
    uri = re.sub(r"^s3a://", "s3://", uri)
    try:
        return fs.FileSystem.from_uri(uri)
    except (OSError, ValueError, NotImplementedError):
        if scheme in ("s3", "s3a", "hdfs"):
            raise
    import fsspec  # deferred: optional, and only schemes that pyarrow lacks need it

    filesystem, path = fsspec.core.url_to_fs(uri)
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def is_temporary(name: str) -> bool:
    """Whether a file is one that `write` left when it was killed half-way."""
    return name.endswith(".tmp")


def redact(uri: str) -> str:
    """The URI without a password or key, fit for messages, logs and run.json."""
    # Up to the last @ before the path; and if a colon comes before any slash (user:secret, not host:port), up to the
    # last @ at all: a secret may hold a slash that somebody forgot to quote.
    uri = re.sub(r"://[^/\s]*@", "://***@", uri)
    uri = re.sub(r"://[^/@:\s]+:(?!\d+(/|$))[^@\s]*@", "://***@", uri)
    return re.sub(
        r"([?&][^=&\s]*(?:key|secret|token|password|sig)[^=&\s]*=)[^&\s]+", r"\1***", uri, flags=re.IGNORECASE
    )
