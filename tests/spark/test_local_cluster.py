"""Executors in processes of their own, and what happens when these die: the same rows and weights, to the bit."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress

import chaos
import harness
import pytest

from spark_rl.data.store import RunStore

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Driver]:
    with harness.driver("local-cluster[2,1,1024]", tmp_path_factory.mktemp("cluster")) as driver:
        yield driver


def plan(what: str, when: str, *tasks: tuple[int, int]) -> chaos.Plan:
    return chaos.Plan(what=what, when=when, tasks=tasks)


@pytest.mark.parametrize("env", ["native", "replay", "recurrent"])
def test_two_executors_give_the_same(cluster: harness.Driver, env: str) -> None:
    text = harness.toml(env)
    assert cluster.master == "local-cluster[2,1,1024]"
    assert len(harness.executors(cluster.process.pid)) == 2
    harness.same(cluster.train(text), text)


@pytest.mark.parametrize("env", ["native", "replay", "recurrent"])
def test_killed_python_workers(cluster: harness.Driver, env: str) -> None:
    text = harness.toml(env)
    run = cluster.train(text, plan=plan("kill worker", "half", (1, 0), (2, 1), (4, 0), (4, 1)))
    harness.same(run, text)
    # Separate executors: whoever dies takes nobody along.
    assert [row["rollout/tasks_retried"] for row in RunStore(run).read_metrics()] == [0, 1, 1, 0, 2, 0]


@pytest.mark.parametrize("env", ["native", "replay", "recurrent"])
def test_a_killed_executor(cluster: harness.Driver, env: str) -> None:
    text = harness.toml(env)
    before = set(harness.executors(cluster.process.pid))
    run = cluster.train(text, plan=plan("kill executor", "half", (3, 1)))
    harness.same(run, text)
    harness.wait_for(lambda: len(harness.executors(cluster.process.pid)) == 2, "a new executor")
    assert len(before & set(harness.executors(cluster.process.pid))) == 1
    rows = RunStore(run).read_metrics()
    # Its environments died with it: they came back from their cursors.
    assert rows[3]["rollout/tasks_retried"] >= 1
    assert rows[3]["rollout/restored"] + rows[3]["rollout/replayed"] >= 1


def test_workers_killed_from_outside_while_they_step(cluster: harness.Driver) -> None:
    """At moments that nobody chose."""
    chance = random.Random(1)
    text = harness.toml("sync", wrapper="Slow", seconds=0.002)
    run = cluster.begin(text)
    for k in (1, 3):
        harness.wait_for(lambda k=k: RunStore(run).iterations()[-1:] == [k], f"iteration {k}", poll_s=0.01)
        harness.wait_for(lambda: chance.random() < 0.05, "a moment", poll_s=0.01)
        victim = chance.choice(harness.python_workers(cluster.process.pid))
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    answer = cluster.result()
    assert "summary" in answer, answer
    harness.same(run, text)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("env", ["native", "sync", "replay", "recurrent"])
def test_random_deaths(cluster: harness.Driver, env: str, seed: int) -> None:
    """A third of all first attempts dies, in one way or another."""
    chance = random.Random(f"{env} {seed}")
    text = harness.toml(env, iterations=12)
    tasks = tuple((k, group) for k in range(12) for group in range(2) if chance.random() < 0.33)
    what = chance.choice(["raise", "kill worker"])
    run = cluster.train(text, plan=plan(what, chance.choice(["before", "half", "after"]), *tasks))
    harness.same(run, text)
    executor = (chance.randrange(12), chance.randrange(2))
    run = cluster.train(text, plan=plan("kill executor", chance.choice(["before", "half", "after"]), executor))
    harness.same(run, text)
    harness.wait_for(lambda: len(harness.executors(cluster.process.pid)) == 2, "a new executor")
