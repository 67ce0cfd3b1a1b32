"""Fitted Q iteration over a table of transitions in Spark SQL: for logs that no single machine holds.

Source: Ernst et al. 2005, "Tree-based batch mode reinforcement learning", with a table in the place of the trees.
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession

from spark_rl.schema.spaces import Leaf, SpaceSpec
from spark_rl.sql import views
from spark_rl.sql.failures import translated


def fitted_q(
    spark: SparkSession,
    data_uri: str,
    observation: SpaceSpec,
    action: SpaceSpec,
    *,
    discount: float,
    initial_value: float,
    max_sweeps: int,
    tolerance: float,
    swept: Callable[[int, float], None],
) -> DataFrame:
    """Columns state, action (both from 0, see policies.states), q, num_rows: every pair that the log has tried.

    Sweeps until no value changes by more than `tolerance`, `max_sweeps` at most; `swept` is told the number of each
    (from 1) and its largest change. Every sweep is one query over the distinct transitions.
    """
    views.register(spark, [data_uri])
    with translated(f"fitted Q iteration over {data_uri}"):
        rows = spark.sql(
            f"SELECT {state_sql(observation, 'observation')} AS state, action - {_starts(action.only)[0]} AS action, "
            f"{state_sql(observation, 'next_observation')} AS successor, reward, discount FROM transitions_with_next"
        )
        model = spark.sql(views.definition("statements/fitted_q_model"), rows=rows).cache()
        q = model.groupBy("state", "action").agg({"num_rows": "sum"}).selectExpr(
            "state", "action", f"CAST({initial_value!r} AS DOUBLE) AS q", "`sum(num_rows)` AS num_rows"
        )  # fmt: skip
        numbers = {"discount": discount, "initial_value": initial_value}
        for sweep in range(1, max_sweeps + 1):
            # Without a checkpoint the query of sweep k would contain all queries before it.
            statement = views.definition("statements/fitted_q_sweep")
            found = spark.sql(statement, numbers, model=model, q=q).localCheckpoint()
            change = float(found.selectExpr("MAX(ABS(q - q_before))").first()[0])  # type: ignore[index]
            q = found.drop("q_before")
            swept(sweep, change)
            if change <= tolerance:
                break
        model.unpersist()
    return q


def state_sql(space: SpaceSpec, column: str) -> str:
    """The number of a state as SQL, the same that `policies.states.StateIndex` gives."""
    terms = []
    for leaf in space.leaves:
        name = ".".join([column, *(f"`{part}`" for part in leaf.name.split(".") if part)])
        radix = leaf.n or (2,) * leaf.size
        places = [name] if leaf.shape == () else [f"{name}[{i}]" for i in range(leaf.size)]
        terms += [(f"({place} - {start})", n) for place, n, start in zip(places, radix, _starts(leaf), strict=True)]
    text = f"CAST({terms[0][0]} AS BIGINT)"
    for digit, n in terms[1:]:
        text = f"({text} * {n} + {digit})"
    return text


def _starts(leaf: Leaf) -> tuple[int, ...]:
    return leaf.start or (0,) * max(1, leaf.size)
