"""What the tests of the Spark half share: tiny runs, the facts two runs must share, and drivers in other processes."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import chaos

from spark_rl.config import RunConfig, load_config
from spark_rl.data.store import RunStore
from spark_rl.policies.weights import sha256
from spark_rl.schema import layout
from spark_rl.train import train

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ITERATIONS = 6

# name -> the rest of [env]. What each is for: the native vector environment with its NEXT_STEP resets and snapshots; an
# environment that can only be carried by replay; single environments in turn; a policy whose memory is carried too.
ENVIRONMENTS = {
    "native": 'id = "CartPole-v1"',
    "replay": 'id = "LunarLander-v3"',
    "sync": 'id = "CartPole-v1"\nvectorization = "sync"',
    "recurrent": 'id = "CartPole-v1"',
}
_POLICY = {"recurrent": 'recurrent = "lstm"\nrecurrent_size = 8'}

_TEMPLATE = """
[run]
seed = 3
env_steps = {env_steps}
[env]
{env}
[rollout]
num_groups = 2
envs_per_group = 8
steps_per_env = {steps}
[policy]
hidden = [16, 16]
{policy}
[algorithm]
name = "ppo"
num_epochs = 2
minibatch_size = 64
[evaluation]
episodes = 4
"""


def toml(
    env: str = "native", *, iterations: int = ITERATIONS, steps: int = 32, wrapper: str = "", **kwargs: Any
) -> str:
    """A tiny run as a TOML file's text; `wrapper` is a class of `chaos`, called with `kwargs`."""
    told = ENVIRONMENTS[env]
    if wrapper:
        pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in kwargs.items())
        told += f'\nwrappers = [{{ entry_point = "chaos:{wrapper}", kwargs = {{ {pairs} }} }}]'
    policy = _POLICY.get(env, "")
    return _TEMPLATE.format(env=told, policy=policy, env_steps=iterations * 2 * 8 * steps, steps=steps)


def write_config(directory: Path, text: str) -> Path:
    """`text` in a file of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{len(list(directory.glob('*.toml')))}.toml"
    path.write_text(text)
    return path


def parse(text: str, overrides: tuple[str, ...] = ()) -> RunConfig:
    """The config of a TOML text and of `--set` overrides."""
    with tempfile.TemporaryDirectory() as place:
        return load_config(write_config(Path(place), text), overrides)


@dataclass(frozen=True)
class Facts:
    """Everything that two runs of one config must have in common, whatever happened to them on the way."""

    weights: str  # sha256 of the newest
    files: dict[int, dict[tuple[str, str], tuple[int, str]]]  # iteration -> (table, name) -> (rows, sha256)
    acted: dict[int, tuple[int, str]]  # iteration -> (policy version, sha256 of its weights)
    metrics: list[dict[str, float]]  # without times, and without how the environments were brought back

    @property
    def rows(self) -> int:
        return sum(
            rows for files in self.files.values() for (table, _), (rows, _) in files.items() if table == "transitions"
        )


_INCIDENTAL = {
    "rollout/live",
    "rollout/restored",
    "rollout/replayed",
    "rollout/replayed_steps",
    "rollout/tasks_retried",
}


def facts(uri: str | Path) -> Facts:
    """The facts of a finished run, after checking that what is on disk is what its records say."""
    store = RunStore(str(uri))
    commits = [store.commit(k) for k in store.iterations()]
    for commit in commits:
        for table in layout.TABLES:
            place = layout.committed(table, commit.iteration)
            for file in commit.of(table):
                assert sha256(store.root.read(f"{place}/{file.name}")) == file.sha256
            assert store.root.sizes(place) == {file.name: file.size_bytes for file in commit.of(table)}
        assert sum(file.rows for file in commit.of("transitions")) == commit.rows_written
    metrics = [
        {name: value for name, value in row.items()
         if not name.startswith(("time/", "throughput/")) and name not in _INCIDENTAL}
        for row in store.read_metrics()
    ]  # fmt: skip
    return Facts(
        weights=sha256(store.read_weights(store.policy_versions()[-1])),
        files={c.iteration: {(f.table, f.name): (f.rows, f.sha256) for f in c.files} for c in commits},
        acted={c.iteration: (c.policy_version, c.weights_sha256) for c in commits},
        metrics=metrics,
    )


@functools.cache
def undisturbed(text: str, overrides: tuple[str, ...] = ()) -> Facts:
    """The run of `text` in this process, without Spark: the oracle of every test here."""
    with tempfile.TemporaryDirectory() as place:
        config = parse(text, overrides)
        summary = train(config, f"{place}/run")
        found = facts(f"{place}/run")
        assert len(found.files) == len(found.metrics) == config.num_iterations
        assert summary["weights_sha256"] == found.weights
        return found


def same(run: str | Path, text: str, overrides: tuple[str, ...] = ()) -> Facts:
    """Assert that the finished run of `text` has every fact of the undisturbed one."""
    got, wanted = facts(run), undisturbed(text, overrides)
    assert got.files == wanted.files
    assert got.acted == wanted.acted
    assert got.weights == wanted.weights
    assert [row["iteration"] for row in got.metrics] == list(range(len(wanted.metrics)))
    assert got.metrics == wanted.metrics
    return got


# ---- processes ----

# `spark-rl`, of this interpreter and this source tree.
CLI = [sys.executable, "-c", "import sys; from spark_rl.cli import main; sys.exit(main())"]


def environment(**more: str) -> dict[str, str]:
    """What a driver's process needs: our package and `chaos`, and nothing of a Spark that runs around us."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK_", "SPARK_"))}
    return clean | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "SPARK_LOCAL_IP": "127.0.0.1"} | more


def end(process: subprocess.Popen[Any], patience_s: float = 10.0) -> None:
    """SIGTERM to the process's group, then SIGKILL to whatever of it is left."""
    for sign, wait in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
        try:
            os.killpg(process.pid, sign)
            process.wait(wait)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@contextmanager
def started(command: list[str], log: Path, **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, its stderr in `log`; gone afterwards, with all of its group."""
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            command, stderr=stream, text=True, start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "stdout": stream, "env": environment()} | keywords,
        )  # fmt: skip
    try:
        yield process
    finally:
        end(process)


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 90.0, poll_s: float = 0.05) -> Any:
    """The first true value of `condition`."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(poll_s)
    raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")


class Driver:
    """A driver in another process (see child.py): another master than this process's, and it may lose executors."""

    def __init__(self, process: subprocess.Popen[str], place: Path) -> None:
        self.process, self.place, self._runs = process, place, 0
        self.master = self._answer()["ready"]

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        assert line, f"the driver ended: {(self.place / 'driver.log').read_text()[-3000:]}"
        return dict(json.loads(line))

    def begin(self, text: str, *, plan: chaos.Plan | None = None, run: str = "", resume: bool = False) -> str:
        """Ask for a run; where it will be."""
        self._runs += 1
        run = run or str(self.place / f"run{self._runs}")
        request = {"config": str(write_config(self.place, text)), "run": run, "resume": resume,
                   "plan": asdict(plan) if plan else None}  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return run

    def result(self) -> dict[str, Any]:
        """What became of it."""
        return self._answer()

    def train(self, text: str, **keywords: Any) -> str:
        """A finished run's directory."""
        run = self.begin(text, **keywords)
        answer = self.result()
        assert "summary" in answer, answer
        return run


@contextmanager
def driver(master: str, place: Path, **conf: str) -> Iterator[Driver]:
    """A driver on `master` for as long as the block lasts."""
    place.mkdir(parents=True, exist_ok=True)
    settings = {
        "spark.master": master, "spark.ui.enabled": "false", "spark.driver.memory": "512m",
        "spark.sql.warehouse.dir": (place / "warehouse").as_uri(),
    } | conf  # fmt: skip
    command = [sys.executable, str(HERE / "child.py"), json.dumps(settings)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": place}
    with started(command, place / "driver.log", **pipes) as process:
        yield Driver(process, place)


def descendants(pid: int) -> dict[int, str]:
    """Processes below `pid`: pid -> command line."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                commands[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except OSError:  # it ended while we looked
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    level = [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found |= {child: commands[child] for child in level}
    return found


def python_workers(pid: int) -> list[int]:
    """The Python workers below `pid`, without their daemons."""
    daemons = {child: command for child, command in descendants(pid).items() if "pyspark.daemon" in command}
    return [child for child in daemons if _parent(child) in daemons]


def executors(pid: int) -> list[int]:
    """The executor JVMs below `pid`."""
    return [
        child
        for child, command in descendants(pid).items()
        if "CoarseGrainedExecutorBackend" in command and "java" in command
    ]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
