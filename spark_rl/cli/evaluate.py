"""spark-rl evaluate: how good a run's policy is."""

from typing import Annotated

import typer

from spark_rl.cli.options import Json, Properties, Run, SparkConf, print_facts, print_json, session


def evaluate(
    run: Run,
    episodes: Annotated[int, typer.Option(min=1, help="Greedy episodes to play.")] = 100,
    policy_version: Annotated[
        int | None, typer.Option(min=0, help="Which weights; else the newest.", show_default=False)
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Play nothing: solve the environment's own table of transitions.")
    ] = False,
    as_json: Json = False,
    spark_conf: SparkConf = None,
    properties_file: Properties = None,
) -> None:
    """Play greedy episodes on the executors; mean, interquartile mean and bootstrap interval of their returns."""
    if exact:
        from spark_rl.evaluation.exact_run import evaluate_exactly

        result = evaluate_exactly(run, policy_version=policy_version)
    else:
        with session("evaluate", properties_file, spark_conf) as spark:
            from spark_rl.train import evaluate_run

            result = evaluate_run(run, spark=spark, episodes=episodes, policy_version=policy_version)
    if as_json:
        print_json(result)
    else:
        print_facts(result)
