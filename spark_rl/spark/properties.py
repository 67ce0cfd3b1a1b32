"""Spark settings as a user gives them: `KEY=VALUE` on the command line, or spark-submit's --properties-file."""

import re
from collections.abc import Iterable
from pathlib import Path

from spark_rl.errors import UserError


def parse_settings(settings: Iterable[str]) -> dict[str, str]:
    """The dict of `spark.some.key=value` strings; later ones win. Raises UserError."""
    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip().startswith("spark."):
            todo = "for example --spark-conf spark.ui.port=4050"
            raise UserError("--spark-conf", repr(setting), "spark.KEY=VALUE", todo)
        parsed[key.strip()] = value.strip()
    return parsed


def read_properties(path: str | Path) -> dict[str, str]:
    """The settings of a properties file: `key value`, `key=value` or `key: value` a line; # and ! begin a comment line.

    Continued lines and escapes of Java's format are not read: none of Spark's settings needs them. Raises UserError.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), str(error), "a properties file", "correct the path") from error
    parsed = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text[0] in "#!":
            continue
        match = re.fullmatch(r"(spark\.[\w.-]+?)\s*[=:\s]\s*(.*)", text)
        if not match:
            raise UserError(f"{path} line {number}", repr(text), "spark.KEY VALUE", "correct the line")
        parsed[match[1]] = match[2]
    return parsed
