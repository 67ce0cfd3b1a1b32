"""Fewer files and fewer iterations; never a wrong count, whenever one looks or crashes."""

import contextlib
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from spark_rl.audit import audit
from spark_rl.config import load_config
from spark_rl.data import compact
from spark_rl.data.reader import read_iteration
from spark_rl.data.store import RunStore
from spark_rl.files import Root
from spark_rl.rollout import run
from spark_rl.train import train

PRESET = Path(__file__).parents[2] / "conf" / "ppo_cartpole.toml"
SMALL = ["rollout.envs_per_group=4", "rollout.steps_per_env=16", "evaluation.episodes=2", "run.env_steps=768"]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """A finished run of six iterations, two files a table."""
    train(load_config(PRESET, SMALL), str(tmp_path / "run"))
    run.forget()
    return RunStore(str(tmp_path / "run"))


def table(store: RunStore):
    """Every row a plain read finds, in the order of its key."""
    found = ds.dataset(f"{store.uri}/transitions", partitioning="hive").to_table()
    return found.sort_by([("episode_id", "ascending"), ("t", "ascending")])


def rows_in_records(store: RunStore) -> int:
    return sum(store.commit(k).rows_written for k in store.iterations())


def test_rows_and_their_order_stay(store: RunStore) -> None:
    before, batch = table(store), batch_of(store, 1)
    assert compact.candidates(store, older_than_s=0.0) == [0, 1, 2, 3]
    for iteration in compact.candidates(store, older_than_s=0.0):
        compact.compact_iteration(store, iteration)
    assert table(store).equals(before)
    assert [len(store.commit(k).of("transitions")) for k in range(6)] == [1, 1, 1, 1, 2, 2]
    again = batch_of(store, 1)
    assert (again.t == batch.t).all() and (again.last_row == batch.last_row).all()
    assert (again.observation[""] == batch.observation[""]).all()


def batch_of(store: RunStore, iteration: int):
    spec = load_config(PRESET, SMALL)
    from spark_rl import builder

    env = builder.stored_plan(spec, store.describe())
    return read_iteration(store.root, store.commit(iteration), env.observation, env.action)


def test_a_compacted_run_still_passes_its_audit(store: RunStore) -> None:
    for iteration in compact.candidates(store, older_than_s=0.0):
        compact.compact_iteration(store, iteration)
    assert audit(store.uri)["identical"]


def test_what_is_young_is_left_alone(store: RunStore) -> None:
    assert compact.candidates(store) == []
    newest = store.commit(5)
    assert compact.retire(store, newest, keep=2) == []


def test_retention_keeps_the_newest(store: RunStore) -> None:
    assert compact.retire(store, store.commit(5), keep=2, grace_s=0.0) == [0, 1, 2, 3]
    assert store.iterations() == [4, 5]
    assert table(store).num_rows == rows_in_records(store)


def test_retention_keeps_what_a_replay_may_need(tmp_path: Path) -> None:
    long_episodes = ["env.id=LunarLander-v3", "rollout.steps_per_env=8", "run.env_steps=384"]
    train(load_config(PRESET, [*SMALL, *long_episodes]), str(tmp_path / "run"))
    store = RunStore(str(tmp_path / "run"))
    newest = store.commit(5)
    assert newest.oldest_needed < 5  # LunarLander episodes last longer than 8 steps
    dropped = compact.retire(store, newest, keep=1, grace_s=0.0)
    assert dropped == list(range(newest.oldest_needed))


def test_training_with_retention_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "retire", lambda store, newest, keep: RETIRE(store, newest, keep=keep, grace_s=0.0))
    whole = train(load_config(PRESET, SMALL), str(tmp_path / "whole"))
    short = train(load_config(PRESET, [*SMALL, "store.keep_iterations=2"]), str(tmp_path / "short"))
    assert short["weights_sha256"] == whole["weights_sha256"]
    assert RunStore(str(tmp_path / "short")).iterations() == [4, 5]


RETIRE = compact.retire


@pytest.mark.parametrize("operation", ["write", "swap", "delete"])
@pytest.mark.parametrize("nth", [0, 1, 2, 3])
def test_a_crash_anywhere_is_finished_later(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, operation: str, nth: int
) -> None:
    before, calls = table(store), iter(range(1000))
    whole = getattr(Root, operation)

    def fail(self: Root, *rest: object) -> object:
        if next(calls) == nth:
            raise OSError("power is gone")
        return whole(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Root, operation, fail)
        with contextlib.suppress(OSError):
            compact.compact_iteration(store, 1)
    assert table(store).num_rows == before.num_rows  # a plain read in between is never wrong
    compact.finish(store)
    store.sweep()
    assert table(store).equals(before)
    assert rows_in_records(store) == before.num_rows
    batch_of(store, 1)  # the record names what is there


def test_an_exchange_where_the_system_has_none_is_two_renames(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spark_rl.files._exchange", lambda one, other: False)
    before = table(store)
    compact.compact_iteration(store, 0)
    assert table(store).equals(before)
