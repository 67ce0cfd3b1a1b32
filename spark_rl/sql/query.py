"""One query: run it, and print what it gives as an aligned table, as JSON lines or as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO, Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.types import ArrayType, BinaryType, DataType, MapType, StructType, TimestampType

from spark_rl.errors import UserError
from spark_rl.sql.failures import translated
from spark_rl.sql.text import aligned

# A table is for reading, and its columns cannot be aligned before its last row is known; JSON and CSV have no limit.
TABLE_ROWS = 1000

_JSON = {"ignoreNullFields": "false"}


def run(spark: SparkSession, text: str, *, output: str = "table", stream: IO[str]) -> None:
    """Run one SQL statement and print its rows.

    `output` is "table" (the first 1,000 rows, with a note where there are more), "json" (one object a line; NaN and
    infinities as strings, BINARY in base64, as Spark's to_json has them) or "csv" (with a header; NULL is empty, arrays
    and structs are JSON). JSON and CSV are streamed partition by partition: any size goes through.

    Raises UserError with Spark's message where the query is wrong, RunError where the work failed.
    """
    printers = {"table": _table, "json": _json_lines, "csv": _csv}
    if output not in printers:
        raise ValueError(f"output is {output!r}; it must be one of {', '.join(printers)}")
    with translated("query"):
        frame = spark.sql(text)
        if frame.columns:  # CREATE, SET and the like have nothing to show
            printers[output](frame, stream)


def fetch(spark: SparkSession, text: str) -> list[dict[str, Any]]:
    """The rows of a query whose result is known to be small, in memory. Raises as `run` does."""
    with translated("query"):
        return [row.asDict() for row in spark.sql(text).collect()]


def _table(frame: DataFrame, stream: IO[str]) -> None:
    # Collected, a timestamp would be in the time zone of this process; as text it is in the session's.
    renamed = _renamed(frame)
    shown = [column.cast("string") if isinstance(field.dataType, TimestampType) else column
             for column, field in zip(map(f.col, renamed.columns), frame.schema, strict=True)]  # fmt: skip
    rows = renamed.select(*shown).limit(TABLE_ROWS + 1).collect()
    stream.writelines(f"{line}\n" for line in aligned(frame.columns, rows[:TABLE_ROWS]))
    if len(rows) > TABLE_ROWS:
        stream.write(f"the first {TABLE_ROWS:,} rows; there are more: --csv and --json print all\n")


def _json_lines(frame: DataFrame, stream: IO[str]) -> None:
    repeated = sorted({name for name in frame.columns if frame.columns.count(name) > 1})
    if repeated:
        raise UserError(
            where="query", got=f"two columns named {repeated[0]}", wanted="different names, which JSON needs",
            todo="rename one with AS",
        )  # fmt: skip
    objects = frame.select(f.to_json(f.struct("*"), _JSON))
    stream.writelines(f"{row[0]}\n" for row in _streamed(objects))


def _csv(frame: DataFrame, stream: IO[str]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(frame.columns)
    renamed = _renamed(frame)
    cells = [_cell(field.name, field.dataType) for field in renamed.schema]
    writer.writerows(_streamed(renamed.select(*cells)))


def _cell(name: str, kind: DataType) -> Any:
    """A column as the text of its values, made by Spark: a FLOAT of 0.1 is 0.1, not its nearest double."""
    if isinstance(kind, ArrayType | StructType | MapType):
        return f.to_json(f.col(name), _JSON)
    return f.base64(f.col(name)) if isinstance(kind, BinaryType) else f.col(name).cast("string")


def _renamed(frame: DataFrame) -> DataFrame:
    """The frame with columns that can be named: a query may call two alike, or put a dot into a name."""
    return frame.toDF(*[f"c{i}" for i in range(len(frame.columns))])


def _streamed(frame: DataFrame) -> Iterator[Row]:
    return iter(frame.toLocalIterator(prefetchPartitions=True))
