"""spark-rl train: the main job."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from spark_rl.cli.options import Json, Properties, SparkConf, print_facts, print_json, session
from spark_rl.errors import Interrupted, UserError


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A TOML file, such as conf/ppo_cartpole.toml.")],
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="URI", help="Where the run lives; else runs/<preset>-<UTC time>."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: rollout.num_groups=4; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last committed iteration of --run.")] = False,
    as_json: Json = False,
    spark_conf: SparkConf = None,
    properties_file: Properties = None,
) -> None:
    """Train a policy; every transition is kept as a table."""
    from spark_rl.cli.progress import Progress
    from spark_rl.config import load_config

    if resume and run is None:
        raise UserError("--resume", "no --run", "the directory of the run to go on with", "add --run URI")
    loaded = load_config(config, set_ or [])
    uri = run or default_run(config)
    try:
        with session(f"train {Path(config).stem}", properties_file, spark_conf) as spark, Progress() as progress:
            from spark_rl import train as training

            summary = training.train(loaded, uri, spark=spark, resume=resume, progress=progress)
    except KeyboardInterrupt as stop:
        overrides = [word for item in set_ or [] for word in ("--set", item)]
        again = shlex.join(["spark-rl", "train", config, *overrides, "--run", uri, "--resume"])
        raise Interrupted(f"interrupted; committed iterations are kept; go on with: {again}") from stop
    if as_json:
        print_json(summary)
    else:
        print_facts(summary)


def default_run(config: str) -> str:
    """`runs/<preset>-<UTC time>`, below the directory the command is typed in."""
    return f"runs/{Path(config).stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
