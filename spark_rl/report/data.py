"""What the page says, as data: the headline, the figures with their rows, the lineage; all of it from the views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spark_rl.report.figures import FIGURES, Figure

Fetch = Callable[[str], list[dict[str, Any]]]

HEADLINE_SQL = """\
SELECT
  COUNT(*) AS num_iterations,
  MAX(env_steps) AS env_steps,
  SUM(num_rows) AS rows_committed,
  SUM(num_episodes) AS num_episodes,
  SUM(size_bytes) AS size_bytes,
  SUM(time_iteration_s) AS wall_s,
  SUM(num_rows) FILTER (WHERE time_iteration_s IS NOT NULL) / SUM(time_iteration_s) AS env_steps_per_s
FROM iterations"""

EVALUATION_SQL = """\
SELECT
  iteration + 1 AS policy_version,
  evaluation_return_mean AS return_mean,
  evaluation_return_low AS return_low,
  evaluation_return_high AS return_high,
  evaluation_episodes AS num_episodes
FROM iterations
WHERE evaluation_return_mean IS NOT NULL
ORDER BY iteration DESC
LIMIT 1"""

# Rows of an episode are there once each if their t are as many as the numbers from the first to the last, and sum up
# like them. It needs one pass and one small row an episode, where a COUNT(DISTINCT ...) would move every row.
EXACTLY_ONCE_SQL = """\
SELECT
  SUM(num_rows) AS rows_stored,
  COUNT_IF(num_rows <> last - first + 1 OR 2 * sum_t <> num_rows * (first + last)) AS num_episodes_broken
FROM (
  SELECT episode_id, COUNT(*) AS num_rows, MIN(t) AS first, MAX(t) AS last, SUM(t) AS sum_t
  FROM transitions
  GROUP BY run_id, episode_id
)"""

LINEAGE_SQL = """\
SELECT policy_version, parent_version, iteration, num_rows, committed_at, sha256
FROM policies
LEFT JOIN (
  SELECT run_id, policy_version, SUM(num_rows) AS num_rows,
    DATE_FORMAT(MAX(committed_at), 'yyyy-MM-dd HH:mm:ss') AS committed_at
  FROM iterations
  GROUP BY run_id, policy_version
) USING (run_id, policy_version)
ORDER BY policy_version"""

RUN_SQL = """\
SELECT run_uuid, uri, DATE_FORMAT(created_at, 'yyyy-MM-dd HH:mm') AS created_at, env_id, algorithm, seed,
  behavior, config, config_sha256, versions
FROM runs"""


@dataclass(frozen=True, slots=True)
class Report:
    """One run, ready to be laid out. Rows are dicts by column."""

    run: dict[str, Any]
    headline: dict[str, Any]
    evaluation: dict[str, Any] | None
    exactly_once: dict[str, Any]
    lineage: list[dict[str, Any]]
    figures: list[tuple[Figure, list[dict[str, Any]]]]  # rows are empty where there is nothing to see


def gather(fetch: Fetch) -> Report:
    """Run every query of the page; `fetch` gives the rows of one."""
    evaluations = fetch(EVALUATION_SQL)
    return Report(
        run=fetch(RUN_SQL)[0],
        headline=fetch(HEADLINE_SQL)[0],
        evaluation=evaluations[0] if evaluations else None,
        exactly_once=fetch(EXACTLY_ONCE_SQL)[0],
        lineage=fetch(LINEAGE_SQL),
        figures=[(figure, _useful(figure, fetch(figure.sql))) for figure in FIGURES],
    )


def _useful(figure: Figure, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows if any(row[name] is not None for row in rows for name in figure.needs) else []
