"""spark-rl benchmark: the README's figures, measured here."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import typer

from spark_rl.benchmarks.benchmark import MODULES, Place, load
from spark_rl.cli.options import Properties, SparkConf, session


def benchmark(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(MODULES)}.")],
    env: Annotated[str | None, typer.Option(help="CartPole-v1, LunarLander-v3, ALE/Pong-v5 or any other.")] = None,
    network: Annotated[str | None, typer.Option(help="mlp (2 x 64 units) or nature_cnn.")] = None,
    groups: Annotated[int | None, typer.Option(min=1, help="Spark tasks.")] = None,
    envs_per_group: Annotated[int | None, typer.Option(min=1, help="Environments that a task steps together.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Env steps of a fragment; else as many as take 3 s.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Pairs of measurements, in turns.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="learn: trainings of each.")] = None,
    config: Annotated[str | None, typer.Option(help="learn, feed: a preset of conf/, or a TOML file.")] = None,
    device: Annotated[str | None, typer.Option(help="update: auto, cpu, cuda.")] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="update: torch's, for both.")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="rollout: stable-baselines3 too (extra bench).")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only see that it works: the figures mean nothing.")] = False,
    directory: Annotated[
        str | None, typer.Option("--dir", metavar="URI", help="Where its runs go and stay; else a temporary place.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON only: no line for people on stderr.")] = False,
    spark_conf: SparkConf = None,
    properties_file: Properties = None,
) -> None:
    """Measure one figure as a ratio to its floor, in one run: a JSON line each on stdout, a readable one on stderr."""
    from spark_rl.benchmarks import machine

    chosen = load(name)
    given = {"env": env, "network": network, "groups": groups, "envs_per_group": envs_per_group, "steps": steps,
             "rounds": rounds, "seeds": seeds, "config": config, "device": device, "threads": threads,
             "peers": peers or None}  # fmt: skip
    options = {option: value for option, value in given.items() if value is not None}
    settings = chosen.configured(name, options, quick=quick)
    where = machine.describe()
    with _place(directory) as uri, _session(chosen.needs_spark, properties_file, spark_conf) as spark:
        for result in chosen.run(settings, Place(uri, spark)):
            typer.echo(result.to_json(where | ({"quick": True} if quick else {})))
            if not as_json:
                typer.echo(str(result), err=True)


@contextmanager
def _place(directory: str | None) -> Iterator[str]:
    if directory is not None:
        yield directory.rstrip("/")
        return
    with tempfile.TemporaryDirectory(prefix="spark-rl-benchmark-", ignore_cleanup_errors=True) as path:
        yield path


def _session(needed: bool, properties: Any, settings: list[str] | None) -> Any:
    return session("benchmark", properties, settings) if needed else nullcontext()
