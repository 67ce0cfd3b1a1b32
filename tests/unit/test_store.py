"""The run directory: what is committed is whole, what is not is invisible or swept, whenever the driver dies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from helpers import collect, env_spec, hashes, rollout_spec, weights_for

from spark_rl.data.reader import read_iteration
from spark_rl.data.store import Commit, RunStore
from spark_rl.errors import RunError, UserError
from spark_rl.experience import group_tasks
from spark_rl.files import Root
from spark_rl.rollout import run
from spark_rl.rollout.spec import RolloutSpec
from spark_rl.schema import layout
from spark_rl.schema.reports import GroupReport
from spark_rl.schema.tables import SCHEMA_VERSION


@pytest.fixture
def spec(tmp_path: Path) -> RolloutSpec:
    run.forget()
    return rollout_spec(tmp_path / "run", env_spec("CartPole-v1", vectorization="sync"))


def reports_of(spec: RolloutSpec, iteration: int = 0) -> list[GroupReport]:
    store = RunStore(spec.run_uri)
    tasks = group_tasks(store, iteration, iteration, list(range(spec.num_groups)))
    return [run.run_group(spec, task, weights_for(spec.policy, iteration)) for task in tasks]


def publish(spec: RolloutSpec, reports: list[GroupReport], iteration: int = 0) -> Commit:
    return RunStore(spec.run_uri).publish(
        iteration, reports, num_groups=spec.num_groups, weights_sha256="w", env_steps=100 * iteration, wall_s=1.0
    )


def visible(spec: RolloutSpec, table: str = layout.TRANSITIONS) -> int:
    """Rows that a plain reader of the directory counts, with hidden names left out as Spark does."""
    where = Path(spec.run_uri, table)
    return int(ds.dataset(where, format="parquet").count_rows()) if where.exists() else 0


# -- one iteration


def test_a_commit_says_what_lies_there(spec: RolloutSpec) -> None:
    commit = publish(spec, reports_of(spec))
    again = RunStore(spec.run_uri).commit(0)
    assert again == commit
    assert (commit.rows_written, commit.env_steps, commit.rows_planned) == (48, 48, 48)
    stored = hashes(spec.run_uri)
    assert {f"{layout.committed(file.table, 0)}/{file.name}": file.sha256 for file in commit.files} == stored
    assert visible(spec) == 48
    assert not Path(spec.run_uri, layout.STAGING, "0").exists()
    assert [file.name for file in commit.of(layout.TRANSITIONS)] == ["part-00000.parquet", "part-00001.parquet"]


@pytest.mark.parametrize("bug", ["missing", "twice", "foreign", "rows", "reset"])
def test_reports_that_do_not_add_up_commit_nothing(bug: str, spec: RolloutSpec) -> None:
    reports = reports_of(spec)
    first = reports[0]
    wrong = {
        "missing": reports[1:],
        "twice": [first, *reports],
        "foreign": [first, replace(reports[1], group=7)],
        "rows": [replace(first, rows_written=first.rows_written - 1), reports[1]],
        "reset": [replace(first, rows_reset=1), reports[1]],
    }
    with pytest.raises(RunError, match="iteration 0.*nothing was committed"):
        publish(spec, wrong[bug])
    assert RunStore(spec.run_uri).iterations() == []
    assert visible(spec) == 0


@pytest.mark.parametrize("change", ["shorter", "gone", "more"])
def test_files_that_differ_from_the_reports_commit_nothing(change: str, spec: RolloutSpec) -> None:
    reports = reports_of(spec)
    file = Path(spec.run_uri, layout.staged(layout.TRANSITIONS, 0), "part-00001.parquet")
    if change == "shorter":
        file.write_bytes(file.read_bytes()[:-1])
    elif change == "gone":
        file.unlink()
    else:
        file.with_name("part-00002.parquet").write_bytes(file.read_bytes())
    with pytest.raises(RunError, match=r"files that differ from the tasks' reports: \['part-0000[12]"):
        publish(spec, reports)
    assert visible(spec) == 0


def test_temporary_files_of_killed_attempts_are_no_rows(spec: RolloutSpec) -> None:
    reports = reports_of(spec)
    staged = Path(spec.run_uri, layout.staged(layout.TRANSITIONS, 0))
    (staged / ".part-00000.parquet.0123.tmp").write_bytes(b"half")
    publish(spec, reports)
    published = Path(spec.run_uri, layout.committed(layout.TRANSITIONS, 0))
    assert sorted(path.name for path in published.iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    (published / ".part-00000.parquet.4567.tmp").write_bytes(b"half")  # one that came between check and rename
    assert visible(spec) == 48


def test_a_twin_that_goes_on_writing_does_not_stop_the_commit(
    spec: RolloutSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = reports_of(spec)
    delete = Root.delete

    def busy(self: Root, relative: str) -> None:
        if relative == f"{layout.STAGING}/0":
            raise OSError("Directory not empty")
        delete(self, relative)

    monkeypatch.setattr(Root, "delete", busy)
    assert publish(spec, reports).rows_written == 48


def test_a_published_directory_without_record_is_redone(spec: RolloutSpec) -> None:
    publish(spec, reports_of(spec))
    wanted = hashes(spec.run_uri)
    Path(spec.run_uri, layout.commit(0)).unlink()
    Path(spec.run_uri, layout.committed(layout.TRANSITIONS, 0), "part-00009.parquet").write_bytes(b"of another life")
    run.forget()
    publish(spec, reports_of(spec))
    assert hashes(spec.run_uri) == wanted


def test_sweep_removes_what_no_record_covers_and_nothing_else(spec: RolloutSpec) -> None:
    collect(spec, 3)
    wanted = {path: content for path, content in hashes(spec.run_uri).items() if "iteration=2" not in path}
    store = RunStore(spec.run_uri)
    Path(spec.run_uri, layout.commit(2)).unlink()
    staged = Path(spec.run_uri, layout.STAGING, "3", "transitions")
    staged.mkdir(parents=True)
    (staged / "part-00000.parquet").write_bytes(b"x")
    other = Path(spec.run_uri, "transitions", "notes.txt")
    other.write_text("somebody's")
    store.sweep()
    assert hashes(spec.run_uri) == wanted | {"transitions/notes.txt": hashes(spec.run_uri)["transitions/notes.txt"]}
    assert not Path(spec.run_uri, layout.STAGING).exists()
    assert store.sweep() == []


# -- the driver dies: before or after any single operation on the file system


class Killed(Exception):
    """Stands for kill -9: nothing after it runs."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> list[str]:
    """From now on, the operation with this number (from 0) is the last one: before it happens, or after it did."""
    log: list[str] = []
    for name in ("write", "rename", "delete"):
        original = getattr(Root, name)

        def dying(self: Root, relative: str, *args: Any, _original: Any = original, _name: str = name) -> Any:
            log.append(f"{_name} {relative}")
            if len(log) == number + 1:
                if after:
                    _original(self, relative, *args)
                raise Killed(log[-1])
            return _original(self, relative, *args)

        monkeypatch.setattr(Root, name, dying)
    return log


def collect_until_killed(spec: RolloutSpec, number: int, *, after: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, number, after=after)
        collect(spec, 2)


def operations(spec: RolloutSpec) -> int:
    with pytest.MonkeyPatch.context() as patch:
        log = kill_at(patch, 10**6, after=False)
        collect(spec, 2)
    return len(log)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_whenever_the_driver_dies_the_second_try_gives_the_same_bytes(tmp_path: Path, after: bool) -> None:
    env = env_spec("CartPole-v1", vectorization="sync")
    reference = rollout_spec(tmp_path / "reference", env)
    total = operations(reference)
    wanted = hashes(reference.run_uri)
    assert total > 15
    for number in range(total):
        spec = rollout_spec(tmp_path / str(number), env)
        store = RunStore(spec.run_uri)
        run.forget()
        with pytest.raises(Killed):
            collect_until_killed(spec, number, after=after)
        committed = store.iterations()
        rows = visible(spec)
        assert rows in (48 * len(committed), 48 * (len(committed) + 1)), number  # whole iterations only
        run.forget()
        store.sweep()
        assert visible(spec) == 48 * len(committed)
        collect(spec, 2 - len(committed), first=len(committed))
        assert hashes(spec.run_uri) == wanted, number
        assert store.iterations() == [0, 1]
        assert store.commit(1).env_steps == 96


# -- the run itself


def test_a_run_begins_once_and_in_an_empty_place(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.run.json.0123.tmp").write_bytes(b"{")  # killed while it began
    store.create({"schema_version": SCHEMA_VERSION, "seed": 1})
    assert store.describe() == {"schema_version": SCHEMA_VERSION, "seed": 1}
    with pytest.raises(
        UserError, match="a run that has begun already; wanted a new directory; continue it with --resume"
    ):
        store.create({})
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"a directory with other content \(thesis.tex\)"):
        RunStore(str(tmp_path / "other")).create({})
    assert (tmp_path / "other/thesis.tex").exists()


def test_places_that_cannot_be_a_run_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="wanted a place to write") as caught:
            RunStore(str(place)).create({})
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match="no run.json; wanted the directory of a run"):
            RunStore(str(place)).describe()


def test_what_is_not_there_is_said_with_what_is(spec: RolloutSpec) -> None:
    collect(spec, 2)
    store = RunStore(spec.run_uri)
    with pytest.raises(RunError, match=r"iteration 5 .*no commit record.*committed: 0 to 1 \(2\)"):
        store.commit(5)
    store.write_weights(0, b"w")
    with pytest.raises(UserError, match=r"policy version 3 .*wanted one of 0 to 0 \(1\)"):
        store.read_weights(3)
    assert (store.read_weights(0), store.policy_versions()) == (b"w", [0])


def test_rows_that_were_changed_after_their_commit_are_refused(spec: RolloutSpec) -> None:
    collect(spec, 1)
    commit = RunStore(spec.run_uri).commit(0)
    path = Path(spec.run_uri, layout.committed(layout.TRANSITIONS, 0), "part-00001.parquet")
    path.write_bytes(path.read_bytes()[:-4] + b"PAR2")
    with pytest.raises(RunError, match="part-00001.parquet .*other bytes than were committed"):
        read_iteration(RunStore(spec.run_uri).root, commit, spec.policy.observation, spec.policy.action)


def test_a_batch_is_the_rows_in_the_order_of_the_groups(spec: RolloutSpec) -> None:
    collect(spec, 1)
    store = RunStore(spec.run_uri)
    batch = read_iteration(store.root, store.commit(0), spec.policy.observation, spec.policy.action)
    assert batch.env_index.tolist() == sorted(batch.env_index.tolist())
    assert batch.num_rows == 48
    assert set(batch.env_index.tolist()) == set(range(6))


# -- metrics


def test_metrics_survive_a_crash_in_the_middle_of_a_line(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    assert store.read_metrics() == []
    store.append_metrics([{"iteration": 0, "env_steps": 5}])
    store.append_metrics([{"iteration": 1}, {"iteration": 2}])
    path = tmp_path / layout.METRICS
    path.write_bytes(path.read_bytes() + b'{"iteration": 3, "env_st')
    assert [row["iteration"] for row in store.read_metrics()] == [0, 1, 2]
    store.keep_metrics(2)
    store.append_metrics([{"iteration": 2}])
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_a_metric_without_a_meaning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metric 'loss' is not defined"):
        RunStore(str(tmp_path)).append_metrics([{"iteration": 0, "loss": 1.0}])
    assert not (tmp_path / layout.METRICS).exists()


# -- an object store: no renames, so the record alone decides


def test_without_renames_files_get_their_final_names_at_once(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    spec = rollout_spec(f"memory://{tmp_path.name}/run", env_spec("CartPole-v1"))
    store = RunStore(spec.run_uri)
    reports_of(spec)
    assert store.root.names(layout.committed(layout.TRANSITIONS, 0)) == ["part-00000.parquet", "part-00001.parquet"]
    store.sweep()
    assert store.root.names(layout.committed(layout.TRANSITIONS, 0)) == []
    run.forget()
    collect(spec, 2, before=lambda iteration: run.forget())
    local = rollout_spec(tmp_path / "local", env_spec("CartPole-v1"))
    run.forget()
    collect(local, 2)
    for iteration in (0, 1):
        here, there = RunStore(local.run_uri).commit(iteration), store.commit(iteration)
        assert here.files == there.files
        batch = read_iteration(store.root, there, spec.policy.observation, spec.policy.action)
        assert batch.num_rows == there.rows_written
