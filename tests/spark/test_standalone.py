"""A real cluster: a master and two workers, and the main job handed to it by spark-submit."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import chaos
import harness
import pyspark
import pytest

from spark_rl.data.store import RunStore

pytestmark = pytest.mark.spark

SPARK_HOME = Path(pyspark.__file__).parent


class Cluster:
    """A standalone master, and one worker with one core on each of the loopback addresses that was asked for."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place, self._stack = place, stack
        self.workers: dict[str, Popen[str]] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"spark://127.0.0.1:{port}"
        self._start("master", "master.Master", "--host", "127.0.0.1", "--port", str(port))
        harness.wait_for(lambda: "New state: ALIVE" in self.log("master"), "a master")

    def _start(self, name: str, *words: str) -> Popen[str]:
        env = harness.environment(SPARK_DAEMON_MEMORY="256m", SPARK_WORKER_DIR=str(self.place / name))
        kind, *rest = words
        launcher = str(SPARK_HOME / "bin" / "spark-class")
        command = [launcher, f"org.apache.spark.deploy.{kind}", "--webui-port", "0", *rest]
        return self._stack.enter_context(harness.started(command, self.place / f"{name}.log", env=env))

    def log(self, name: str) -> str:
        """What a process of the cluster, or a submitted driver, has written so far."""
        path = self.place / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def add_worker(self, host: str) -> None:
        """One more machine, as far as Spark can tell."""
        words = ("worker.Worker", "--host", host, "--cores", "1", "--memory", "1g", self.url)
        self.workers[host] = self._start(host, *words)
        harness.wait_for(lambda: "Successfully registered with master" in self.log(host), f"a worker on {host}")

    @contextmanager
    def submitted(self, name: str, *words: str, **conf: str) -> Iterator[Popen[str]]:
        """The main job under our own properties for such clusters, in less memory than these ask for."""
        settings = {
            "spark.driver.host": "127.0.0.1", "spark.driver.memory": "512m", "spark.executor.memory": "512m",
            "spark.executor.cores": "1", "spark.ui.enabled": "false",
            "spark.sql.warehouse.dir": (self.place / "warehouse").as_uri(),
        } | conf  # fmt: skip
        command = [
            str(SPARK_HOME / "bin" / "spark-submit"), "--master", self.url,
            "--properties-file", str(harness.ROOT / "conf" / "spark" / "standalone.conf"),
            *(word for key, value in settings.items() for word in ("--conf", f"{key}={value}")),
            "--py-files", chaos.__file__, str(harness.ROOT / "jobs" / "train.py"), *words,
        ]  # fmt: skip
        env = harness.environment(PYSPARK_PYTHON=sys.executable)
        started = harness.started(command, self.place / f"{name}.log", env=env, stdout=PIPE, cwd=self.place)
        with started as process:
            yield process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        made = Cluster(tmp_path_factory.mktemp("cluster"), stack)
        made.add_worker("127.0.0.1")
        yield made


def finished(cluster: Cluster, name: str, process: Popen[str]) -> dict:
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, cluster.log(name)[-3000:]
    return dict(json.loads(out.splitlines()[-1]))  # spark-submit puts a driver's stderr into its stdout


def below(cluster: Cluster, host: str) -> list[int]:
    return harness.executors(cluster.workers[host].pid)


def test_an_executor_joins_and_another_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Tests run in this order: at first the cluster has one worker."""
    go, run = tmp_path / "go", tmp_path / "run"
    text = harness.toml("sync", wrapper="Halting", iteration=2, go=str(go))
    config = harness.write_config(tmp_path, text)
    with cluster.submitted("joined", str(config), "--run", str(run), "--json") as process:
        harness.wait_for(lambda: run.exists() and RunStore(str(run)).iterations() == [0, 1], "two iterations")
        assert len(below(cluster, "127.0.0.1")) == 1

        # The first task waits on the one core that there is, the second for a core: the newcomer's.
        cluster.add_worker("127.0.0.2")
        harness.wait_for(lambda: below(cluster, "127.0.0.2"), "an executor of the newcomer")
        newcomer = cluster.workers["127.0.0.2"].pid
        harness.wait_for(lambda: harness.python_workers(newcomer), "a task of the newcomer")

        os.kill(below(cluster, "127.0.0.1")[0], signal.SIGKILL)
        harness.wait_for(lambda: "Lost executor" in cluster.log("joined"), "word of its loss")
        assert RunStore(str(run)).iterations() == [0, 1]
        go.touch()
        summary = finished(cluster, "joined", process)
    found = harness.same(run, text)
    assert summary["weights_sha256"] == found.weights
    retried = [row["rollout/tasks_retried"] for row in RunStore(str(run)).read_metrics()]
    assert retried[2] >= 1


def test_a_preset_under_speculation(cluster: Cluster, tmp_path: Path) -> None:
    """A first attempt hangs for longer than the test may take; its twin on the other machine does the work."""
    if "127.0.0.2" not in cluster.workers:
        cluster.add_worker("127.0.0.2")
    preset = harness.ROOT / "conf" / "ppo_cartpole.toml"
    marker, run = tmp_path / "marker", tmp_path / "run"
    wrapper = f'entry_point = "chaos:Straggler", kwargs = {{ iteration = 2, seconds = 150.0, marker = "{marker}" }}'
    overrides = (
        f"env.wrappers=[{{ {wrapper} }}]", "rollout.num_groups=2", "rollout.envs_per_group=8",
        "rollout.steps_per_env=32", f"run.env_steps={5 * 512}", "evaluation.episodes=4",
    )  # fmt: skip
    words = [word for override in overrides for word in ("--set", override)]
    # Our own settings wait for longer than a test should: 10 s, and three quarters of the groups.
    quick = {"minTaskRuntime": "1s", "interval": "100ms", "quantile": "0.5"}
    quick = {f"spark.speculation.{key}": value for key, value in quick.items()}
    with cluster.submitted("straggler", str(preset), "--run", str(run), "--json", *words, **quick) as process:
        summary = finished(cluster, "straggler", process)
    assert summary["wall_s"] < 100
    assert marker.exists()
    found = harness.same(run, preset.read_text(), overrides)
    assert summary["weights_sha256"] == found.weights
    assert [row["rollout/tasks_retried"] for row in RunStore(str(run)).read_metrics()] == [0, 0, 1, 0, 0]
