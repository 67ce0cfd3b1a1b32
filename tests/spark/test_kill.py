"""The driver is killed at any instant and the run goes on: to the same rows, weights and metrics, to the bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import harness
import pyarrow.parquet as pq
import pytest
from dying_disk import Disk, Killed

from spark_rl import builder, files
from spark_rl.data.store import RunStore
from spark_rl.errors import UserError
from spark_rl.rollout import run as rollout
from spark_rl.schema import layout
from spark_rl.train import train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from spark_rl.config import RunConfig
    from spark_rl.envs.carry import EnvPlan

PIPELINED = ("[rollout]", "[rollout]\npipelined = true")


def visible(run: Path, table: str = "transitions") -> dict[int, dict[str, int]]:
    """What a plain read of the table would meet: iteration -> file -> rows; raises for a file that is none."""
    found: dict[int, dict[str, int]] = {}
    for path in sorted((run / table).glob("*/*")):
        if not any(part.startswith(("_", ".")) for part in (path.name, path.parent.name)):
            rows = pq.read_metadata(path).num_rows
            found.setdefault(int(path.parent.name.removeprefix("iteration=")), {})[path.name] = rows
    return found


def crash(run: Path, text: str, fatal: int | None, *, torn: bool = False, resume: bool = False) -> list[str]:
    """Train until operation number `fatal` on the run's disk; the operations done. A new process begins cacheless."""
    rollout.forget()
    disk = Disk(fatal, torn=torn)
    with pytest.MonkeyPatch.context() as patch:
        opened = files.open_root
        patch.setattr(files, "open_root", lambda uri: disk.open(opened(uri)))
        try:
            train(harness.parse(text), str(run), resume=resume)
        except Killed:
            assert fatal is not None
    rollout.forget()
    return disk.operations


def readable(run: Path, text: str) -> None:
    """What must hold right after the kill, before anything is mended."""
    wanted = harness.undisturbed(text).files
    for table in ("transitions", "episodes"):
        for k, parts in visible(run, table).items():
            # Whole iterations only, and with the rows that they will have in the end.
            assert parts == {name: rows for (of, name), (rows, _) in wanted[k].items() if of == table}
    store = RunStore(str(run))
    for k in store.iterations():
        assert {(f.table, f.name): (f.rows, f.sha256) for f in store.commit(k).files} == wanted[k]
        assert visible(run)[k]


def go_on(run: Path, text: str) -> None:
    """Resume the run, or begin it again where the kill came before it was one."""
    resume = (run / layout.RUN).exists()
    if not resume:
        with pytest.raises(UserError, match=r"no run\.json"):
            train(harness.parse(text), str(run), resume=True)
    train(harness.parse(text), str(run), resume=resume)


@pytest.fixture
def looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is examined for each text once: it touches no disk and is half of the time of a tiny run."""
    examined: dict[str, EnvPlan] = {}
    env_plan = builder.env_plan

    def plan(config: RunConfig) -> EnvPlan:
        if config.env.id not in examined:
            examined[config.env.id] = env_plan(config)
        return examined[config.env.id]

    monkeypatch.setattr(builder, "env_plan", plan)


CASES = {
    "native": harness.toml("native", iterations=3, steps=16),
    "replay": harness.toml("replay", iterations=3, steps=16),
    "pipelined": harness.toml("native", iterations=3, steps=16).replace(*PIPELINED),
}


@pytest.mark.parametrize(
    ("case", "torn"),
    [
        ("native", True),
        ("pipelined", True),
        pytest.param("native", False, marks=pytest.mark.chaos),
        pytest.param("pipelined", False, marks=pytest.mark.chaos),
        pytest.param("replay", False, marks=pytest.mark.chaos),
        pytest.param("replay", True, marks=pytest.mark.chaos),
    ],
)
def test_a_kill_at_every_operation_on_the_disk(tmp_path: Path, looked_at_once: None, case: str, torn: bool) -> None:
    """Killed before each operation; with `torn`, in the middle of each that has a middle."""
    text = CASES[case]
    operations = crash(tmp_path / "whole", text, None)
    harness.same(tmp_path / "whole", text)
    assert len(operations) > 60
    chance = random.Random(0)
    for fatal, words in enumerate(operations):
        if torn and words.startswith(("create", "move")):
            continue
        run = tmp_path / str(fatal)
        try:
            crash(run, text, fatal, torn=torn)
            readable(run, text)
            if fatal % 3 == 0 and (run / layout.RUN).exists():  # killed again while it mends itself
                crash(run, text, chance.randrange(12), torn=torn, resume=True)
                readable(run, text)
            go_on(run, text)
            harness.same(run, text)
            assert not (run / layout.STAGING).exists()
        except BaseException as error:
            error.add_note(f"killed {'in' if torn else 'before'} operation {fatal}: {words}")
            raise
        shutil.rmtree(run)


def test_what_must_hold_after_a_kill_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: files published one by one, as a naive driver would, are seen half-way."""

    def one_by_one(self: files.Root, source: str, target: str) -> None:
        for name in self.names(source):
            self.make_parent(f"{target}/{name}")
            self.filesystem.move(self.locate(f"{source}/{name}"), self.locate(f"{target}/{name}"))

    monkeypatch.setattr(files.Root, "rename", one_by_one)
    text = CASES["native"]
    operations = crash(tmp_path / "whole", text, None)
    second = [i for i, words in enumerate(operations) if words.endswith("transitions/iteration=1/part-00001.parquet")]
    crash(tmp_path / "run", text, second[-1])
    with pytest.raises(AssertionError):
        readable(tmp_path / "run", text)


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path: Path) -> None:
    text = CASES["native"]
    train(harness.parse(text), str(tmp_path / "run"))
    before = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    summary = train(harness.parse(text), str(tmp_path / "run"), resume=True)
    assert summary["finished"] == "all 3 iterations are done"
    after = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    assert before == after


# ---- real processes ----


def start(config: Path, run: Path, *words: str) -> list[str]:
    conf = ["spark.master=local[2]", "spark.ui.enabled=false", "spark.driver.memory=512m"]
    settings = [word for setting in conf for word in ("--spark-conf", setting)]
    return [*harness.CLI, "train", str(config), "--run", str(run), *settings, *words]


def kill_when(condition: Callable[[Path], object], config: Path, run: Path, *words: str, of_all: bool = True) -> None:
    """SIGKILL to a `spark-rl train` as soon as `condition(run)` is true: to its whole group, or the driver alone."""
    log = run.parent / "killed.log"
    with harness.started(start(config, run, *words), log, cwd=run.parent) as process:

        def now() -> bool:
            assert process.poll() is None, f"it ended before it was killed: {log.read_text()[-2000:]}"
            return bool(condition(run))

        harness.wait_for(now, "the moment to kill", poll_s=0.002)
        if of_all:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL


def staged(run: Path) -> bool:
    return any((run / layout.STAGING / "2").rglob("part-*.parquet"))


def committed(run: Path) -> bool:
    return (run / layout.commit(4)).exists()


@pytest.mark.spark
def test_a_killed_driver_is_resumed_from_the_command_line(spark: SparkSession, tmp_path: Path) -> None:
    # Slow steps on executors only, so that there is something in staging to see for a while.
    text = harness.toml("sync", iterations=6, wrapper="Slow", seconds=0.0005)
    config, run = harness.write_config(tmp_path, text), tmp_path / "run"
    kill_when(staged, config, run)
    readable(run, text)
    # The driver alone: its JVM and the workers see it go, and end.
    kill_when(committed, config, run, "--resume", of_all=False)
    readable(run, text)

    done = subprocess.run(
        start(config, run, "--resume", "--json"), env=harness.environment(), cwd=tmp_path, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "from iteration" in done.stderr
    found = harness.same(run, text)
    assert json.loads(done.stdout)["weights_sha256"] == found.weights
    assert spark.read.parquet(f"{run}/transitions").count() == found.rows


@pytest.mark.chaos
@pytest.mark.parametrize("env", ["native", "sync", "replay", "recurrent"])
def test_random_kills(spark: SparkSession, tmp_path: Path, env: str) -> None:
    """Killed over and over, at moments that nobody chose, until it is done."""
    chance = random.Random(env)
    text = harness.toml(env, iterations=30, steps=128)
    config, run, log = harness.write_config(tmp_path, text), tmp_path / "run", tmp_path / "log"
    for starts in range(1, 6):
        words = ["--resume"] if starts > 1 else []
        with harness.started(start(config, run, *words), log, cwd=tmp_path) as process:
            harness.wait_for(lambda n=starts: log.read_text().count(": 30 iterations") == n, "the run's first words")
            if starts == 5:
                assert process.wait(240) == 0, log.read_text()[-3000:]
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.0, 2.0))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        readable(run, text)
    found = harness.same(run, text)
    assert spark.read.parquet(f"{run}/transitions").count() == found.rows
