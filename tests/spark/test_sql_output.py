"""What a query prints: a table, JSON lines, CSV, or one line that says why it failed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from spark_rl.errors import RunError, SparkRLError, UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def printed(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    from spark_rl.sql.query import run

    def ask(text: str, output: str = "table") -> str:
        stream = io.StringIO()
        run(spark, text, output=output, stream=stream)
        assert capsys.readouterr() == ("", "")
        return stream.getvalue()

    return ask


MIXED = """SELECT 1 AS n, 0.1F AS f, ARRAY(0.25F, -1.5F) AS box, STRUCT(2 AS x, NULL AS y) AS s, X'0001' AS image,
  DOUBLE('NaN') AS bad, 'a "b"' AS text, TIMESTAMP'2026-01-02 03:04:05' AS at, true AS yes, NULL AS nothing"""


def test_a_table_is_aligned(printed: Callable[..., str]) -> None:
    assert printed("SELECT * FROM VALUES (1, 'x', ARRAY(1/3D)), (-20, NULL, NULL) AS t(number, word, list)") == (
        "number  word  list\n------  ----  ----------\n     1  x     [0.333333]\n   -20  NULL  NULL\n"
    )
    cells = printed(MIXED).splitlines()[2].split("  ")
    assert [cell.strip() for cell in cells if cell] == [
        "1", "0.1", "[0.25, -1.5]", "{x: 2, y: NULL}", "<2 bytes>", "NaN", 'a "b"', "2026-01-02 03:04:05", "true",
        "NULL",
    ]  # fmt: skip


def test_json_is_an_object_a_line(printed: Callable[..., str]) -> None:
    assert json.loads(printed(MIXED, "json")) == {
        "n": 1, "f": 0.1, "box": [0.25, -1.5], "s": {"x": 2, "y": None}, "image": "AAE=", "bad": "NaN", "text": 'a "b"',
        "at": "2026-01-02T03:04:05.000Z", "yes": True, "nothing": None,
    }  # fmt: skip
    lines = printed("SELECT id FROM RANGE(0, 2500, 1, 3)", "json").splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(2500))


def test_csv_reads_back(printed: Callable[..., str]) -> None:
    assert list(csv.reader(io.StringIO(printed(MIXED, "csv")))) == [
        ["n", "f", "box", "s", "image", "bad", "text", "at", "yes", "nothing"],
        ["1", "0.1", "[0.25,-1.5]", '{"x":2,"y":null}', "AAE=", "NaN", 'a "b"', "2026-01-02 03:04:05", "true", ""],
    ]
    assert printed("SELECT 1 AS `a.b`, 2 AS `a.b`", "csv") == "a.b,a.b\n1,2\n"


def test_a_long_table_says_that_it_is_cut(printed: Callable[..., str]) -> None:
    lines = printed("SELECT id, id AS again FROM RANGE(1001)").splitlines()
    assert len(lines) == 2 + 1000 + 1
    assert lines[-1] == "the first 1,000 rows; there are more: --csv and --json print all"
    assert "first" not in printed("SELECT id, id AS again FROM RANGE(1000)")


def test_a_statement_without_rows_prints_nothing(printed: Callable[..., str]) -> None:
    assert printed("CREATE OR REPLACE TEMPORARY VIEW nothing AS SELECT 1") == ""


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "SELECT foo FROM VALUES (1) AS t(food)",
            UserError,
            r"\[UNRESOLVED_COLUMN.*`foo`.*Did you mean.*line 1 pos 7$",
        ),
        ("SELEC 1", UserError, r"\[PARSE_SYNTAX_ERROR\] Syntax error at or near 'SELEC'"),
        ("SELECT * FROM missing", UserError, r"\[TABLE_OR_VIEW_NOT_FOUND\] The table or view `missing`"),
        ("SELECT 1 / id FROM RANGE(1)", UserError, r"\[DIVIDE_BY_ZERO\]"),
        ("SELECT RAISE_ERROR('boo') FROM RANGE(1)", RunError, r"\[USER_RAISED_EXCEPTION\] boo"),
    ],
)
def test_a_failing_query_is_one_line(
    text: str, kind: type[SparkRLError], message: str, printed: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind, match=f"^query: {message}") as caught:
        printed(text)
    assert "\n" not in str(caught.value)
    assert "at org.apache" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_two_columns_of_one_name_have_no_json(printed: Callable[..., str]) -> None:
    with pytest.raises(UserError, match="two columns named a; wanted different names"):
        printed("SELECT 1 AS a, 2 AS a", "json")


def test_numbers_and_long_values_in_a_table(printed: Callable[..., str]) -> None:
    values = "1234567.89D, 1.5e-7D, -0D, DOUBLE('-Infinity'), 12345678901L, 0.1BD"
    cells = printed(f"SELECT {values}").splitlines()[2].split()
    assert cells == ["1234567.9", "1.5e-07", "-0", "-Infinity", "12345678901", "0.1"]
    wide = printed("SELECT SEQUENCE(1, 20) AS list, REPEAT('x', 200) AS word, 'a\nb' AS lines").splitlines()[2]
    assert "[1, 2, 3, 4, 5, 6, 7, 8, … 12 more]" in wide
    assert f"{'x' * 99}…  a\\nb" in wide


def test_a_single_column_of_text_is_printed_whole(printed: Callable[..., str]) -> None:
    assert "x" * 200 in printed("SELECT REPEAT('x', 200) AS word")
    assert "== Physical Plan ==" in printed("EXPLAIN SELECT 1").splitlines()
