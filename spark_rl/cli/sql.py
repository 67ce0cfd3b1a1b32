"""spark-rl sql: a run's tables in SQL."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from spark_rl.cli.options import Json, Properties, SparkConf, print_facts, session
from spark_rl.errors import UserError


def sql(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run directories; the views hold all of them.")],
    query: Annotated[str | None, typer.Option("-e", metavar="QUERY", help="The query.")] = None,
    file: Annotated[Path | None, typer.Option("-f", metavar="FILE", help="A file with the query.")] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    spark_conf: SparkConf = None,
    properties_file: Properties = None,
) -> None:
    """Query the views of a run's tables; without a query, list the views and the question that each answers."""
    if as_json and as_csv:
        raise UserError("sql", "--json and --csv", "one of them", "take one out")
    text = query_text(query, file)
    with session("sql", properties_file, spark_conf) as spark:
        from spark_rl.sql import query as queries
        from spark_rl.sql import views

        views.register(spark, runs)
        if text is None:
            print_facts(views.questions())
        else:
            queries.run(spark, text, output="json" if as_json else "csv" if as_csv else "table", stream=sys.stdout)


def query_text(query: str | None, file: Path | None) -> str | None:
    """The query of -e or -f; None where neither is given. Raises UserError for both and for a bad file."""
    if query is not None and file is not None:
        raise UserError("sql", "-e and -f", "one query", "take one out")
    if file is None:
        return query
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(file), str(error), "a text file with SQL", "correct the path") from error
