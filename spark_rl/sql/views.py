"""The views: one .sql file each, which begins with the question it answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from pyspark.sql import SparkSession

from spark_rl.sql import stored
from spark_rl.sql.failures import translated
from spark_rl.sql.runs import open_runs

# Over the stored table of the same name, which stands for {stored} in the file.
BASE = ("transitions", "episodes", "iterations", "policies", "runs")
# Over the views before them.
DERIVED = ("transitions_with_next", "returns_by_policy_version", "learning_curve")


def register(spark: SparkSession, run_uris: Sequence[str]) -> None:
    """Make every view a temporary view of the session, over these runs side by side.

    The column `run_id` tells the runs apart: the directory's name, with -2, -3, ... where names are equal. The views
    show what is committed now; call again to see more. Columns that a run lacks are NULL in its rows.

    Raises UserError for a place without a run, for a run that is named twice, for runs whose observations or actions
    have different SQL types (one is BIGINT, the other ARRAY<FLOAT>), and where Spark cannot read the place.
    """
    runs = open_runs(run_uris)
    frames = stored.frames(spark, runs)
    with translated("views"):
        for name in BASE:
            spark.sql(definition(name), stored=frames[name]).createOrReplaceTempView(name)
        for name in DERIVED:
            spark.sql(definition(name)).createOrReplaceTempView(name)


def definition(name: str) -> str:
    """The SELECT of a view, or of a file in statements/, without its comment."""
    lines = _text(name).splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


def questions() -> dict[str, str]:
    """View -> the question it answers."""
    return {name: _text(name).splitlines()[0].removeprefix("-- ") for name in (*BASE, *DERIVED)}


def _text(name: str) -> str:
    return resources.files("spark_rl.sql").joinpath(f"{name}.sql").read_text(encoding="utf-8")
