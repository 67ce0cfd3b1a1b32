"""spark-rl report: a run on one page."""

from pathlib import Path
from typing import Annotated

import typer

from spark_rl.cli.options import Properties, Run, SparkConf, session


def report(
    run: Run,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="The page; else report.html in the run.")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="DIR", help="Write the pictures there as well.")] = None,
    spark_conf: SparkConf = None,
    properties_file: Properties = None,
) -> None:
    """Write one self-contained HTML page: curves, returns by policy version, throughput, config, lineage."""
    with session("report", properties_file, spark_conf) as spark:
        from spark_rl import report as reports

        typer.echo(reports.build(run, spark=spark, output=output, png_dir=png))
