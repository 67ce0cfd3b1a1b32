"""spark-rl audit: execute a run again and compare."""

from typing import Annotated

import typer

from spark_rl.cli.options import Json, Properties, Run, SparkConf, print_facts, print_json, session


def audit(
    run: Run,
    iteration: Annotated[
        list[int] | None, typer.Option("--iteration", min=0, metavar="K", help="Only this one; may be repeated.")
    ] = None,
    rows_only: Annotated[bool, typer.Option("--rows-only", help="Leave the learner's updates out.")] = False,
    as_json: Json = False,
    spark_conf: SparkConf = None,
    properties_file: Properties = None,
) -> None:
    """Collect and learn again from stored facts; rows and weights must be the same to the bit."""
    from spark_rl.cli.progress import Progress

    with session("audit", properties_file, spark_conf) as spark, Progress() as progress:
        from spark_rl.audit import audit as auditing

        result = auditing(run, iterations=iteration or None, learn=not rows_only, spark=spark, progress=progress)
    if as_json:
        print_json(result)
    else:
        print_facts(result)
