"""spark-rl offline: learn from a table."""

from typing import Annotated

import typer

from spark_rl.cli.options import Json, Properties, SparkConf, print_facts, print_json, session
from spark_rl.cli.train import default_run


def offline(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A TOML file, such as conf/fitted_q_taxi.toml.")],
    data: Annotated[str, typer.Option("--data", metavar="URI", help="A run or a collected dataset.")],
    run: Annotated[
        str | None, typer.Option("--run", metavar="URI", help="Where the result is to live; else as for train.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: algorithm.discount=0.9; may be repeated."),
    ] = None,
    as_json: Json = False,
    spark_conf: SparkConf = None,
    properties_file: Properties = None,
) -> None:
    """Learn a policy from stored transitions, in Spark SQL; no environment is stepped."""
    from spark_rl.cli.progress import Progress
    from spark_rl.config import load_config

    loaded = load_config(config, set_ or [])
    with session("offline", properties_file, spark_conf) as spark, Progress() as progress:
        from spark_rl.offline import offline as learning

        summary = learning(loaded, data, run or default_run(config), spark=spark, progress=progress)
    if as_json:
        print_json(summary)
    else:
        print_facts(summary)
