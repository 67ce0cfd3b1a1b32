"""Spark's complaints in one line, without plans and stacks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.logger import PySparkLogger

from spark_rl.errors import RunError, SparkRLError, UserError

# SQLSTATE classes that the text of a query is to blame for: its data conversions and divisions, a feature Spark lacks,
# its syntax and names. Everything else is a machine's or a file's fault.
_OF_THE_QUERY = ("22", "0A", "21", "42")
_STATE = re.compile(r"SQLSTATE: (\w{5})")
_ERROR_CLASS = re.compile(r"\[[A-Z][A-Z0-9_.]+\] .*")  # "[DIVIDE_BY_ZERO] Division by zero. ..."
_CALL = re.compile(r"^An error occurred while calling \S+\s*:\s*")  # how py4j begins what Spark left untranslated
_NO_FILE_SYSTEM = re.compile(r'No FileSystem for scheme "(\w+)"|Class (\S*FileSystem) not found')


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what Spark raises inside into one line that begins with `where`.

    UserError where the query or the place is wrong, RunError where the work failed. pyspark logs every failed query as
    JSON with its stack on stderr; that is silenced here, because the line says it all.
    """
    loggers = [PySparkLogger.getLogger(name) for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise translate(where, error) from error
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def translate(where: str, error: Exception) -> SparkRLError:
    """The line for one exception of Spark's."""
    text = str(error)
    missing = _NO_FILE_SYSTEM.search(text)
    if missing:
        return UserError(
            where=where, got=f"no file system for it in this Spark ({missing.group(1) or missing.group(2)})",
            wanted="a place that Spark can read",
            todo="copy the run to a local path, or add the file system's jar (s3a: --spark-conf "
            "spark.jars.packages=org.apache.hadoop:hadoop-aws:VERSION, with the version of Spark's own Hadoop)",
        )  # fmt: skip
    state = _STATE.search(text)
    kind = UserError if state and state.group(1).startswith(_OF_THE_QUERY) else RunError
    return kind(f"{where}: {first_line(text)}")


def first_line(text: str) -> str:
    """Spark's sentence: the line with the error class where there is one, else the first one."""
    named = _ERROR_CLASS.search(text)
    sentence = named.group() if named else _CALL.sub("", text)
    lines = [line.strip() for line in sentence.splitlines() if line.strip()]
    return lines[0].rstrip(";") if lines else "Spark gave no reason"
