"""Committed env steps per second, over plain processes that store nothing.

Ours is the whole way of an iteration's experience: reading the last commit for its cursors, broadcasting weights that
no worker has seen, the Spark job (policy, environments, facts, Parquet, hashes), the checks and the commit. Everything
is warm, and fragments are long enough for an iteration to take seconds, as on a cluster; what a short one costs is
`benchmark iteration`.

The floors are as many operating-system processes as there are tasks, one thread each, with the same environments,
the same number of vector steps and the same weights, keeping nothing: `floor_plain` with the policy as a competent user
writes it in numpy, `floor_engine` with our own acting policy (see `steppers`). No engine that keeps its data can beat
the second by more than noise. Both count transitions only, as we do: a step that only resets is none.

With --peers, stable-baselines3's sampling rates with 8 and 256 environments stand in the floor's place: one process
with the threads it takes by itself, as its users run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spark_rl.benchmarks import peers, steppers, workload
from spark_rl.benchmarks.benchmark import Benchmark, Place
from spark_rl.benchmarks.comparison import Comparison, in_turns
from spark_rl.benchmarks.crew import Crew
from spark_rl.experience import make_collector

_PEER_ENVS = (8, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Zeros stand for what the benchmark finds by itself."""

    env: str = "CartPole-v1"
    network: str = "mlp"
    groups: int = 0  # tasks; 0: as many as the session runs at once
    envs_per_group: int = 0  # 0: the environment's preset
    steps: int = 0  # env steps of a fragment; 0: as many as fill `seconds`
    seconds: float = 3.5  # of one iteration
    rounds: int = 7
    peers: bool = False


def run(settings: Settings, place: Place) -> Iterator[Comparison]:
    """Results against both floors and, if asked for, the peers."""
    if settings.peers:
        peers.require_stable_baselines3()
    groups = settings.groups or place.spark.sparkContext.defaultParallelism
    config = workload.config(settings.env, groups=groups, envs_per_group=settings.envs_per_group,
                             network=settings.network)  # fmt: skip
    collector = make_collector(place.spark)
    try:
        ours = workload.CollectingRun(config, f"{place.uri}/rollout", collector)
        members = [(ours.spec, ours.weights(0), seed) for seed in range(groups)]
        with Crew(steppers.plain, members) as plain, Crew(steppers.engine, members) as engine:
            if settings.steps:
                ours.lengthen(settings.steps)
                ours.iterate()
            steps = settings.steps or ours.fill(settings.seconds)
            for crew in (plain, engine):
                crew.run(min(steps, 64))
            sources: list[str] = []

            def committed() -> float:
                iteration = ours.iterate()
                sources.extend(report.source for report in iteration.reports)
                return iteration.rate

            found = in_turns(settings.rounds, committed, lambda: plain.rate(steps), lambda: engine.rate(steps))
        detail = {"environments_from": {source: sources.count(source) for source in sorted(set(sources))},
                  "processes": groups}  # fmt: skip
        for name, floor in zip(("floor_plain", "floor_engine"), found[1:], strict=True):
            yield Comparison(name=f"rollout/{name}", unit="env steps/s", better="higher", ours=found[0], floor=floor,
                             settings=ours.settings(), detail=detail)  # fmt: skip
        if settings.peers:
            yield from _peers(settings, ours)
    finally:
        collector.close()


def _peers(settings: Settings, ours: workload.CollectingRun) -> Iterator[Comparison]:
    steps = ours.spec.steps_per_env
    for num_envs in _PEER_ENVS:
        # A few seconds of theirs; they take 32 vector steps at least.
        peer_steps = max(32, min(steps, 50_000 // num_envs))
        with Crew(peers.stable_baselines3, [(ours.spec.env, settings.network, num_envs)], one_thread=False) as crew:
            crew.run(1)
            found = in_turns(settings.rounds, lambda: ours.iterate().rate, lambda: crew.rate(peer_steps))  # noqa: B023
        yield Comparison(name=f"rollout/stable-baselines3_{num_envs}", unit="env steps/s", better="higher",
                         ours=found[0], floor=found[1], settings=ours.settings(),
                         detail={"peer_envs": num_envs, "peer_steps": peer_steps, "processes": 1})  # fmt: skip


BENCHMARK = Benchmark(
    settings=Settings(),
    quick=Settings(groups=2, envs_per_group=4, steps=16, rounds=1),
    needs_spark=True,
    run=run,
)
