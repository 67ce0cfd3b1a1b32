"""Options that several verbs share, and the session they open."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's directory: a path or any URI.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
SparkConf = Annotated[
    list[str] | None, typer.Option("--spark-conf", metavar="KEY=VALUE", help="A Spark setting; may be repeated.")
]
Properties = Annotated[
    Path | None, typer.Option("--properties-file", help="Spark settings as spark-submit takes them: conf/spark/*.conf.")
]


@contextmanager
def session(verb: str, properties: Path | None, settings: list[str] | None) -> "Iterator[SparkSession]":
    """Spark for one verb: --spark-conf over --properties-file over our defaults. Stopped if it began here."""
    from spark_rl.spark.properties import parse_settings, read_properties
    from spark_rl.spark.session import active_session, get_session

    conf = (read_properties(properties) if properties else {}) | parse_settings(settings or [])
    found = active_session() is not None
    spark = get_session(f"spark-rl {verb}", conf=conf)
    try:
        yield spark
    finally:
        if not found:
            spark.stop()


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, in one line."""
    typer.echo(json.dumps(value, default=str))


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values on stdout, a line each, values in one column."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {readable(value)}")


def readable(value: Any) -> str:
    """A value as a person reads it: 12,345 and 0.1235, the rest as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}"
