"""Seconds of PPO on CartPole-v1 to a greedy mean return of 475, over stable-baselines3 with rl-zoo's hyperparameters.

Both train in processes of their own, one after the other, seed after seed, so that neither inherits threads, warm
caches or a JVM from the other. Both stop by one rule: after every block of env steps, 20 greedy episodes whose starts
are the same each time; the first mean of at least the target ends the run. The time of these evaluations is left out of
both clocks, for they are the benchmark's wish. A block is 2,048 env steps for stable-baselines3, and the fewest whole
iterations with as many for ours; where ours are longer, that is our loss.

Both clocks begin when everything is imported and end at the evaluation that reaches the target. Ours begins with a
Spark session whose Python workers have just started: it includes opening the run directory, every transition's way to
disk and back, checkpoints, metrics and TensorBoard. Theirs includes making the model and its 8 environments, and
writes nothing. What comes before (imports, and the session with its workers) is `start_s` in the detail. A seed that
does not get there within its budget counts with all its time, and is named in `failed_seeds`.

The peer trains twice: with as many torch threads as it takes by itself, which is what its users get, and with one,
which is faster for a network this small.

Ours always runs on Spark in local[*], also when this verb was submitted to a cluster: the peer has this machine only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from spark_rl.benchmarks.benchmark import Benchmark, Place
from spark_rl.benchmarks.comparison import Comparison
from spark_rl.benchmarks.peers import require_stable_baselines3
from spark_rl.benchmarks.presets import preset_file
from spark_rl.errors import RunError, UserError
from spark_rl.files import open_root

_OURS, _PEER = "spark_rl.benchmarks.learn_ours", "spark_rl.benchmarks.learn_sb3"
_PEER_THREADS = {"default_threads": 0, "one_thread": 1}  # 0: as many as torch takes


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The rule that both follow."""

    config: str = "ppo_cartpole"  # ours: a preset of conf/, or a TOML file
    target: float = 475.0  # mean undiscounted return
    episodes: int = 20  # greedy, an evaluation
    block_steps: int = 2048  # env steps between two evaluations
    seeds: int = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One seed's training, as the process that runs it is told."""

    config: str
    run_uri: str
    seed: int
    target: float
    episodes: int
    block_steps: int
    threads: int


def run(settings: Settings, place: Place) -> Iterator[Comparison]:
    """Two results, one for each of the peer's thread counts; the rounds are the seeds."""
    require_stable_baselines3()
    if not open_root(place.uri).has_rename:
        raise UserError("benchmark learn --dir", place.uri, "a local directory", "leave the option out")
    config = str(preset_file(settings.config))
    found: dict[str, list[dict[str, Any]]] = {"ours": [], **{name: [] for name in _PEER_THREADS}}
    for seed in range(settings.seeds):
        trial = Trial(
            config=config, run_uri=f"{place.uri}/learn-{seed}", seed=seed, target=settings.target,
            episodes=settings.episodes, block_steps=settings.block_steps, threads=0,
        )  # fmt: skip
        found["ours"].append(_in_a_process(_OURS, trial))
        for name, threads in _PEER_THREADS.items():
            found[name].append(_in_a_process(_PEER, replace(trial, threads=threads)))
    for name in _PEER_THREADS:
        yield Comparison(
            name=f"learn/{name}", unit="s", better="lower",
            ours=[one["train_s"] for one in found["ours"]], floor=[one["train_s"] for one in found[name]],
            settings=asdict(settings) | {"floor": "stable-baselines3 PPO, rl-zoo's CartPole-v1 hyperparameters"},
            detail={"ours": _detail(found["ours"], settings.target), "floor": _detail(found[name], settings.target)},
        )  # fmt: skip


def _detail(trials: list[dict[str, Any]], target: float) -> dict[str, Any]:
    kept = {key: [one[key] for one in trials] for key in ("start_s", "env_steps", "evaluation_s", "return_mean")}
    return kept | {"failed_seeds": [seed for seed, one in enumerate(trials) if one["return_mean"] < target]}


def _in_a_process(module: str, trial: Trial) -> dict[str, Any]:
    """What the module's main prints last, for one trial. Raises RunError where it fails."""
    # A submitted driver's gateway is its own; the child starts its own session.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_GATEWAY")}
    done = subprocess.run([sys.executable, "-m", module, json.dumps(asdict(trial))], capture_output=True, text=True,
                          env=env, check=False)  # fmt: skip
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise RunError(f"benchmark learn, {module}, seed {trial.seed}", lines[-1] if lines else "no message",
                       todo=f"python -m {module} shows the rest")  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


BENCHMARK = Benchmark(
    # Every policy's episodes are longer than 5 steps: both stop at their first evaluation.
    settings=Settings(), quick=Settings(target=5.0, episodes=2, block_steps=256, seeds=1), needs_spark=False, run=run,
)  # fmt: skip
