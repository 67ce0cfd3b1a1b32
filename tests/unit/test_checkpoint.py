"""The learner's state on disk: whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_rl import checkpoint
from spark_rl.checkpoint import Checkpoint, load, newest, prune
from spark_rl.files import Root, open_root

FILES = ("weights.safetensors", "learner.safetensors", "checkpoint.json")


def save(root: Root, iteration: int) -> Checkpoint:
    made = Checkpoint(
        iteration, 10 * iteration, b"w%d" % iteration, b"s%d" % iteration, '{"a":1}', "done" if iteration == 9 else ""
    )
    made.save(root)
    return made


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    root = open_root(str(tmp_path))
    assert newest(root, []) is None
    made = save(root, 9)
    assert load(root, 9) == made
    assert newest(root, [8, 9]) == made


def test_the_newest_is_that_of_a_committed_iteration(tmp_path: Path) -> None:
    root = open_root(str(tmp_path))
    made = [save(root, iteration) for iteration in (2, 9, 10)]
    assert newest(root, [2, 9]) == made[1]  # 10 > 9 as a number, and 10 is not committed
    assert newest(root, [2, 9, 10]) == made[2]
    assert newest(root, [1]) is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "other"])
def test_a_damaged_checkpoint_is_none_and_the_one_before_it_counts(name: str, damage: str, tmp_path: Path) -> None:
    root = open_root(str(tmp_path))
    before = save(root, 1)
    save(root, 2)
    path = tmp_path / "_checkpoints/2" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-1], "empty": b"", "other": b"[1]"}[damage])
    assert load(root, 2) is None
    assert newest(root, [1, 2]) == before


def test_a_save_that_is_killed_at_any_file_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = open_root(str(tmp_path))
    before = save(root, 1)
    for number in range(len(FILES)):
        calls: list[str] = []
        write = Root.write

        def dying(self: Root, relative: str, content: bytes, _write: object = write, _number: int = number) -> None:
            calls.append(relative)  # noqa: B023 (used within the loop)
            if len(calls) > _number:  # noqa: B023
                raise KeyboardInterrupt
            _write(self, relative, content)  # type: ignore[operator]

        monkeypatch.setattr(Root, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            save(root, 2)
        monkeypatch.undo()
        assert newest(root, [1, 2]) == before
    assert save(root, 2) == newest(root, [1, 2])


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    root = open_root(str(tmp_path))
    for iteration in (8, 9, 10, 11):
        save(root, iteration)
        checkpoint.prune(root, 2)
    assert root.names("_checkpoints") == ["10", "11"]
    prune(root, 5)
    assert root.names("_checkpoints") == ["10", "11"]
