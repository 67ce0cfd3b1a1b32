"""A local file system that fails for good at a chosen operation: SIGKILL at every instant, in milliseconds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyarrow import fs

from spark_rl.files import Root


class Killed(BaseException):
    """Like SIGKILL, nothing may handle it."""


class Disk(fs.FileSystemHandler):
    """Counts what changes the disk. At operation number `fatal` (from 0), and ever after, it raises Killed.

    `torn`: half of that operation is done: half of a file is written, half of a directory deleted; a rename is whole.
    """

    def __init__(self, fatal: int | None = None, *, torn: bool = False) -> None:
        self._local = fs.LocalFileSystem()
        self.operations: list[str] = []
        self._fatal, self._torn = fatal, torn

    def open(self, root: Root) -> Root:
        """`root` on this disk."""
        return replace(root, filesystem=fs.PyFileSystem(self))

    def _count(self, words: str, half: Callable[[], None] = lambda: None) -> None:
        self.operations.append(words)
        if self._fatal is not None and len(self.operations) > self._fatal:
            if self._torn and len(self.operations) == self._fatal + 1:
                half()
            raise Killed(words)

    # -- what changes the disk

    def create_dir(self, path: str, recursive: bool) -> None:
        if not os.path.isdir(path):
            self._count(f"create {path}")
        self._local.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        def half() -> None:
            files = sorted(os.path.join(place, name) for place, _, names in os.walk(path) for name in names)
            for name in files[: (len(files) + 1) // 2]:
                os.remove(name)

        self._count(f"delete {path}", half)
        self._local.delete_dir(path)

    def delete_file(self, path: str) -> None:
        self._count(f"delete {path}")
        self._local.delete_file(path)

    def move(self, source: str, target: str) -> None:
        self._count(f"move {source} to {target}")
        self._local.move(source, target)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        def half() -> None:
            with open(path, "wb") as stream:
                stream.write(b'{"torn')

        self._count(f"write {path}", half)
        return self._local.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        def half() -> None:
            with open(path, "ab") as stream:
                stream.write(b'{"iteration": 0, "torn')

        self._count(f"append {path}", half)
        return self._local.open_append_stream(path, metadata=metadata)

    # -- what only looks

    def get_file_info(self, paths: list[str]) -> Any:
        return self._local.get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> Any:
        return self._local.get_file_info(selector)

    def open_input_file(self, path: str) -> Any:
        return self._local.open_input_file(path)

    def open_input_stream(self, path: str) -> Any:
        return self._local.open_input_stream(path)

    def get_type_name(self) -> str:
        return "dying"

    def normalize_path(self, path: str) -> str:
        return path

    # -- what a run does not do

    def copy_file(self, source: str, target: str) -> None:
        raise NotImplementedError

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        raise NotImplementedError

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError
