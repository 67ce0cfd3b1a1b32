"""spark-rl collect: experience without learning."""

from typing import Annotated

import typer

from spark_rl.cli.options import Json, Properties, SparkConf, print_facts, print_json, session


def collect(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A TOML file; its learning sections are not used.")],
    run: Annotated[str, typer.Option("--run", metavar="URI", help="Where the dataset is to live.")],
    policy: Annotated[
        str, typer.Option(metavar="POLICY", help="random, module:function, or a trained run's directory.")
    ] = "random",
    policy_version: Annotated[
        int | None, typer.Option(min=0, help="Which weights of that run; else the newest.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: run.env_steps=100000000; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last committed iteration.")] = False,
    as_json: Json = False,
    spark_conf: SparkConf = None,
    properties_file: Properties = None,
) -> None:
    """Collect a dataset: the same tables as training, from any policy, without a learner."""
    from spark_rl.cli.progress import Progress
    from spark_rl.config import load_config

    loaded = load_config(config, set_ or [])
    with session("collect", properties_file, spark_conf) as spark, Progress() as progress:
        from spark_rl.collect import collect as collecting

        summary = collecting(loaded, run, policy=policy, policy_version=policy_version, spark=spark, resume=resume,
                             progress=progress)  # fmt: skip
    if as_json:
        print_json(summary)
    else:
        print_facts(summary)
