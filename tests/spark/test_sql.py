"""The views against answers worked out by hand, or by numpy from the files that the commit records name."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_rl.config import RunConfig
from spark_rl.errors import UserError
from spark_rl.schema import tables
from spark_rl.train import train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Rows = list[dict[str, Any]]


def config(env: dict[str, Any], *, iterations: int = 5, steps: int = 24, **sections: dict[str, Any]) -> RunConfig:
    """Two groups of four environments; a run of it takes a fraction of a second without Spark."""
    rollout = {"num_groups": 2, "envs_per_group": 4, "steps_per_env": steps}
    return RunConfig.from_dict({
        "run": {"seed": 1, "env_steps": iterations * 8 * steps},
        "env": env,
        "rollout": rollout,
        "policy": {"hidden": [8]},
        "algorithm": {"name": "ppo", "num_epochs": 1, "minibatch_size": 64},
        "evaluation": {"episodes": 2},
    } | sections)  # fmt: skip


CARTPOLE = {"id": "CartPole-v1"}
FROZEN_LAKE = {"id": "FrozenLake-v1", "kwargs": {"is_slippery": True}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs by name, each trained once."""
    place = tmp_path_factory.mktemp("runs")

    def make(name: str, env: dict[str, Any], **keywords: Any) -> Path:
        run = place / name
        if not run.exists():
            train(config(env, **keywords), str(run))
        return run

    return make


@pytest.fixture(scope="module")
def cartpole(made: Callable[..., Path]) -> Path:
    """A run, and beside its committed iterations what a crash may leave: a published iteration without a record."""
    run = made("cartpole", CARTPOLE)
    for table in ("transitions", "episodes"):
        if not (run / table / "iteration=99").exists():
            shutil.copytree(run / table / "iteration=0", run / table / "iteration=99")
    return run


@pytest.fixture
def query(spark: SparkSession) -> Callable[..., Rows]:
    """Register runs and run one query over them."""
    from spark_rl.sql import views
    from spark_rl.sql.query import fetch

    registered: list[tuple[str, ...]] = []

    def ask(text: str, *runs: Path) -> Rows:
        uris = tuple(map(str, runs))
        if registered[-1:] != [uris]:
            views.register(spark, uris)
            registered.append(uris)
        return fetch(spark, text)

    return ask


def commits(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (run / "_commits").iterdir()]
    return sorted(found, key=lambda commit: commit["iteration"])


def stored(run: Path, table: str) -> Rows:
    """The committed rows by pyarrow alone, each with its iteration."""
    rows = []
    for commit in commits(run):
        for file in commit["files"]:
            if file["table"] == table:
                path = run / table / f"iteration={commit['iteration']}" / file["name"]
                found = pq.ParquetFile(path).read().to_pylist()
                rows += [row | {"iteration": commit["iteration"]} for row in found]
    return rows


def by_step(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: (row["episode_id"], row["t"]))


# ---- what is committed, and nothing else ----


@pytest.mark.parametrize("env", [CARTPOLE, FROZEN_LAKE], ids=["cartpole", "frozen_lake"])
def test_transitions_are_the_committed_rows(
    env: dict[str, Any], made: Callable[..., Path], cartpole: Path, query: Callable[..., Rows]
) -> None:
    run = cartpole if env is CARTPOLE else made("frozen_lake", env)
    found = query("SELECT * FROM transitions", run)
    assert {row.pop("run_id") for row in found} == {run.name}
    for row in found:
        assert row.pop("is_first") == (row["t"] == 0)
        assert row.pop("is_last") == (row["terminated"] or row["truncated"])
    assert by_step(found) == by_step(stored(run, "transitions"))
    assert isinstance(found[0]["observation"], list if env is CARTPOLE else int)


def test_episodes_are_the_committed_rows(cartpole: Path, query: Callable[..., Rows]) -> None:
    found = query("SELECT * FROM episodes ORDER BY episode_id", cartpole)
    wanted = sorted(stored(cartpole, "episodes"), key=lambda row: row["episode_id"])
    assert len(wanted) > 10
    assert found == [{"run_id": "cartpole"} | row for row in wanted]


def test_next_observation_is_the_true_successor(cartpole: Path, query: Callable[..., Rows]) -> None:
    found = by_step(query("SELECT * FROM transitions_with_next", cartpole))
    rows = by_step(stored(cartpole, "transitions"))
    assert len(found) == len(rows)
    across = ends = 0
    for i, (row, got) in enumerate(zip(rows, found, strict=True)):
        following = rows[i + 1] if i + 1 < len(rows) and rows[i + 1]["episode_id"] == row["episode_id"] else None
        if following is not None:
            assert got["next_observation"] == following["observation"]
            assert got["next_action"] == following["action"]
            across += row["final_observation"] is not None
        else:
            assert got["next_observation"] == row["final_observation"] is not None
            assert got["next_action"] is None
            ends += row["terminated"]
        assert got["discount"] == (0.0 if row["terminated"] else 1.0)
    assert across > 0, "no episode goes on in the next iteration: the case that matters is missing"
    assert ends > 0


def test_a_time_limit_keeps_its_discount(made: Callable[..., Path], query: Callable[..., Rows]) -> None:
    run = made("limited", CARTPOLE | {"max_episode_steps": 6}, iterations=1)
    found = query("SELECT terminated, truncated, discount FROM transitions_with_next", run)
    assert sum(row["truncated"] for row in found) > 5
    assert all(row["discount"] == 1.0 for row in found if row["truncated"] and not row["terminated"])


def test_a_cut_episode_is_no_end(made: Callable[..., Path], query: Callable[..., Rows]) -> None:
    run = made("cut", CARTPOLE | {"carry": "cut"}, iterations=3)
    cut = query("SELECT episode_id, length FROM episodes WHERE end_reason = 'cut'", run)
    assert len(cut) >= 8
    last = {row["episode_id"]: row for row in by_step(query("SELECT * FROM transitions_with_next", run))}
    for episode in cut:
        row = last[episode["episode_id"]]
        assert (row["is_last"], row["discount"], row["next_action"], row["t"]) == (
            False,
            1.0,
            None,
            episode["length"] - 1,
        )
        assert row["next_observation"] == row["final_observation"] is not None
    counted = query("SELECT SUM(num_episodes) AS n FROM returns_by_policy_version", run)[0]["n"]
    assert counted == sum(row["end_reason"] != "cut" for row in stored(run, "episodes"))
    curve = query("SELECT SUM(num_episodes) AS n FROM learning_curve", run)
    assert curve[0]["n"] == counted


# ---- views over episodes, by hand ----


def episode(number: int, value: float, reason: str, oldest: int, newest: int) -> dict[str, Any]:
    return {
        "episode_id": number, "env_index": 0, "seed": None, "length": int(value) + 1, "episode_return": value,
        "terminated": reason == "terminated", "truncated": reason == "truncated", "end_reason": reason,
        "first_iteration": oldest, "policy_version_min": oldest, "policy_version_max": newest,
    }  # fmt: skip


@pytest.fixture(scope="module")
def by_hand(made: Callable[..., Path]) -> Path:
    """A run of two iterations whose episodes are known numbers."""
    run = made("by_hand", CARTPOLE | {"max_episode_steps": 10}, iterations=2)
    known = {
        0: [*(episode(i, value, "terminated", 0, 0) for i, value in enumerate([4.0, 1.0, 10.0, 2.0, 3.0])),
            episode(5, 100.0, "cut", 0, 0)],
        1: [episode(6, 7.0, "truncated", 0, 1)],
    }  # fmt: skip
    for iteration, rows in known.items():
        files = sorted((run / "episodes" / f"iteration={iteration}").iterdir())
        for i, path in enumerate(files):
            pq.write_table(pa.Table.from_pylist(rows if i == 0 else [], schema=tables.EPISODES), path)
    return run


def test_returns_by_policy_version_by_hand(by_hand: Path, query: Callable[..., Rows]) -> None:
    first, second = query("SELECT * FROM returns_by_policy_version ORDER BY policy_version", by_hand)
    assert first == {
        "run_id": "by_hand", "policy_version": 0, "num_episodes": 5, "num_episodes_shared": 0,
        "return_mean": 4.0, "return_se": pytest.approx(2.5**0.5), "return_min": 1.0, "return_p05": pytest.approx(1.2),
        "return_p25": 2.0, "return_p50": 3.0, "return_p75": 4.0, "return_p95": pytest.approx(8.8), "return_max": 10.0,
        "return_iqm": 3.0,
    }  # fmt: skip
    assert (second["policy_version"], second["num_episodes"], second["num_episodes_shared"]) == (1, 1, 1)
    assert (second["return_mean"], second["return_se"], second["return_iqm"]) == (7.0, None, 7.0)


def test_returns_by_policy_version_by_numpy(cartpole: Path, query: Callable[..., Rows]) -> None:
    from spark_rl.evaluation.statistics import interquartile_mean

    found = query("SELECT * FROM returns_by_policy_version", cartpole)
    rows = stored(cartpole, "episodes")
    assert {row["policy_version"] for row in found} == {row["policy_version_max"] for row in rows}
    for row in found:
        values = np.array([e["episode_return"] for e in rows if e["policy_version_max"] == row["policy_version"]])
        assert row["num_episodes"] == len(values)
        assert row["return_iqm"] == pytest.approx(interquartile_mean(values), abs=1e-12)
        quantiles = [row[f"return_p{part}"] for part in ("05", "25", "50", "75", "95")]
        assert quantiles == pytest.approx(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist())


def test_learning_curve_by_hand(by_hand: Path, query: Callable[..., Rows]) -> None:
    first, second = query("SELECT * FROM learning_curve ORDER BY iteration", by_hand)
    lines = [json.loads(line) for line in (by_hand / "metrics.jsonl").read_text().splitlines()]
    assert (first["num_episodes"], first["return_mean"], first["length_p50"]) == (5, 4.0, 4.0)
    assert (second["num_episodes"], second["return_mean"], second["return_se"]) == (1, 7.0, None)
    assert [first["env_steps"], second["env_steps"]] == [line["env_steps"] for line in lines]
    assert second["elapsed_s"] == pytest.approx(sum(line["time/iteration_s"] for line in lines))
    assert (first["evaluation_return_mean"], second["evaluation_return_mean"]) == (
        None, lines[1]["evaluation/return_mean"],
    )  # fmt: skip


def test_learning_curve_equals_the_run_s_own_metrics(cartpole: Path, query: Callable[..., Rows]) -> None:
    lines = [json.loads(line) for line in (cartpole / "metrics.jsonl").read_text().splitlines()]
    found = query("SELECT * FROM learning_curve ORDER BY iteration", cartpole)
    for name in ("return_mean", "length_mean"):
        wanted = [line.get(f"rollout/{name}") for line in lines]
        assert [row[name] for row in found] == pytest.approx(wanted)
    assert [row["num_episodes"] for row in found] == [line["rollout/episodes"] for line in lines]


# ---- records ----


def test_iterations_are_commits_with_their_metrics(cartpole: Path, tmp_path: Path, query: Callable[..., Rows]) -> None:
    run = tmp_path / "short"
    shutil.copytree(cartpole, run)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines[:-1]))  # a crash came before the last line
    found = query("SELECT * FROM iterations ORDER BY iteration", run)
    assert len(found) == len(lines) == len(commits(run))
    for row, commit, line in zip(found, commits(run), lines, strict=True):
        last = commit["iteration"] == len(lines) - 1
        assert row["num_rows"] == commit["rows_written"]
        assert row["env_steps"] == sum(c["rows_written"] for c in commits(run)[: commit["iteration"] + 1])
        assert row["num_files"] == len(commit["files"])
        assert row["size_bytes"] == sum(file["size_bytes"] for file in commit["files"])
        assert row["num_episodes"] == sum(file["rows"] for file in commit["files"] if file["table"] == "episodes")
        assert row["weights_sha256"] == commit["weights_sha256"]
        for name, value in json.loads(line).items():
            if name not in ("iteration", "env_steps", "policy_version"):
                assert row[name.replace("/", "_")] == (None if last else value), name


def test_policies_are_the_stored_weights(cartpole: Path, query: Callable[..., Rows]) -> None:
    found = query("SELECT * FROM policies ORDER BY policy_version", cartpole)
    assert [row["policy_version"] for row in found] == [0, 1, 2, 3, 4, 5]
    assert [row["parent_version"] for row in found] == [None, 0, 1, 2, 3, 4]
    assert [row["iteration"] for row in found] == [0, 1, 2, 3, 4, None]
    for row in found:
        content = Path(row["uri"]).read_bytes()
        assert (row["sha256"], row["size_bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert row["algorithm"] == "ppo"


def test_a_row_leads_to_its_weights_and_its_config(cartpole: Path, query: Callable[..., Rows]) -> None:
    text = """
        SELECT DISTINCT policy_version, sha256, seed, config_sha256, GET_JSON_OBJECT(config, '$.algorithm.name') AS name
        FROM transitions JOIN policies USING (run_id, policy_version) JOIN runs USING (run_id)
        ORDER BY policy_version"""
    described = json.loads((cartpole / "run.json").read_text())
    assert query(text, cartpole) == [
        {"policy_version": commit["policy_version"], "sha256": commit["weights_sha256"], "seed": 1,
         "config_sha256": described["config_sha256"], "name": "ppo"}
        for commit in commits(cartpole)
    ]  # fmt: skip


# ---- several runs ----


def test_runs_stand_side_by_side(made: Callable[..., Path], cartpole: Path, query: Callable[..., Rows]) -> None:
    other = made("elsewhere/cartpole", CARTPOLE, iterations=2)
    wanted = {"cartpole": len(stored(cartpole, "transitions")), "cartpole-2": len(stored(other, "transitions"))}
    for table in ("transitions", "transitions_with_next"):
        found = query(f"SELECT run_id, COUNT(*) AS n FROM {table} GROUP BY run_id", cartpole, other)
        assert {row["run_id"]: row["n"] for row in found} == wanted
    # The episodes of both runs have the same ids, and must not run into each other.
    first = query("SELECT * FROM transitions_with_next WHERE run_id = 'cartpole-2'", cartpole, other)
    alone = query("SELECT * FROM transitions_with_next", other)
    assert [row | {"run_id": ""} for row in by_step(first)] == [row | {"run_id": ""} for row in by_step(alone)]
    curves = query(
        "SELECT run_id, MAX(elapsed_s) AS s FROM learning_curve GROUP BY run_id ORDER BY run_id", cartpole, other
    )
    for row, run in zip(curves, (cartpole, other), strict=True):
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert row["s"] == pytest.approx(sum(json.loads(line)["time/iteration_s"] for line in lines))


def test_a_column_that_one_run_lacks_is_null(cartpole: Path, spark: SparkSession) -> None:
    from spark_rl.sql import stored as frames
    from spark_rl.sql.runs import Run

    runs = [Run(str(cartpole)), Run(str(cartpole))]
    parts = [spark.sql("SELECT 1 AS a"), spark.sql("SELECT 2 AS a, 3D AS cost")]
    united = frames._union(runs, parts)
    assert sorted(map(tuple, united.collect())) == [(1, None), (2, 3.0)]


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (
            ["cartpole", "frozen_lake"],
            "frozen_lake: got column observation of type BIGINT; wanted ARRAY<FLOAT>, as",
        ),
        (["cartpole", "pendulum"], "pendulum: got column action of type ARRAY<FLOAT>; wanted BIGINT, as in "),
        (["cartpole", "cartpole/"], "cartpole: got named twice; wanted every run once"),
        (["nothing"], "nothing: got no run.json"),
    ],
)
def test_runs_that_cannot_be_queried(
    which: list[str], message: str, made: Callable[..., Path], cartpole: Path, spark: SparkSession
) -> None:
    from spark_rl.sql import views

    made("frozen_lake", FROZEN_LAKE)
    made("pendulum", {"id": "Pendulum-v1"}, iterations=1)
    with pytest.raises(UserError, match=re.escape(message)):
        views.register(spark, [f"{cartpole.parent}/{name}" for name in which])


# ---- tables without files ----


@pytest.mark.parametrize(
    "env",
    [CARTPOLE, FROZEN_LAKE, {"id": "Blackjack-v1"}, {"id": "Pendulum-v1"}],
    ids=["box", "discrete", "tuple", "box_action"],
)
def test_a_table_without_files_has_the_columns_of_one_with_files(
    env: dict[str, Any], made: Callable[..., Path], tmp_path: Path, spark: SparkSession
) -> None:
    from spark_rl.sql import views

    run = made(f"typed_{env['id']}", env, iterations=1)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(run / "run.json", begun)
    schemas = []
    for uri in (run, begun):
        views.register(spark, [str(uri)])
        schemas.append(
            {name: spark.table(name).dtypes for name in ("transitions", "transitions_with_next", "episodes")}
        )
    assert schemas[0] == schemas[1]
    for name in ("transitions", "episodes", "iterations", "policies", "returns_by_policy_version", "learning_curve"):
        assert spark.table(name).count() == 0, name


def test_a_run_in_which_no_episode_has_ended(made: Callable[..., Path], query: Callable[..., Rows]) -> None:
    run = made("unfinished", CARTPOLE, iterations=1, steps=2)
    assert not (run / "episodes").exists()
    assert query("SELECT * FROM episodes", run) == []
    assert query("SELECT num_episodes, return_mean FROM learning_curve", run) == [
        {"num_episodes": 0, "return_mean": None}
    ]


# ---- places ----


def test_a_path_with_pattern_characters_is_a_path(
    made: Callable[..., Path], tmp_path: Path, query: Callable[..., Rows]
) -> None:
    run = made("limited", CARTPOLE | {"max_episode_steps": 6}, iterations=1)
    odd = tmp_path / "a [b] {c}*? d%20e"
    shutil.copytree(run, odd)
    (tmp_path / "a b c d").mkdir()  # what the pattern would look for
    assert query("SELECT COUNT(*) AS n FROM transitions", odd) == [{"n": len(stored(run, "transitions"))}]


def test_on_an_object_store_only_recorded_files_count(cartpole: Path, tmp_path: Path, spark: SparkSession) -> None:
    from spark_rl.sql import stored as frames
    from spark_rl.sql.runs import open_runs

    copy = tmp_path / "run"
    shutil.copytree(cartpole, copy)
    inside = copy / "transitions" / "iteration=0"
    shutil.copy(inside / "part-00000.parquet", inside / "merged-00002.parquet")  # a compaction is under way
    (run,) = open_runs([str(copy)])
    run.store.root = replace(run.store.root, has_rename=False)
    assert frames.frames(spark, [run])["transitions"].count() == len(stored(cartpole, "transitions"))


def test_a_place_that_spark_cannot_read(spark: SparkSession) -> None:
    from spark_rl.sql import views

    train(config(CARTPOLE, iterations=1, steps=2), "memory://sql/run")
    message = "run memory://sql/run: got no file system for it in this Spark (memory); wanted"
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        views.register(spark, ["memory://sql/run"])
    assert "\n" not in str(caught.value)


def test_every_view_says_what_question_it_answers() -> None:
    from spark_rl.sql import views

    answered = views.questions()
    files = {path.stem for path in Path(views.__file__).parent.glob("*.sql")}
    assert files == set(answered)
    assert all(question.endswith("?") for question in answered.values()), answered
