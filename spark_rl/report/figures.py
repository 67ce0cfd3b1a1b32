"""The figures of the page: for each its question, its query, and its drawing. The query shown is the query used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spark_rl import metrics
from spark_rl.report import plots
from spark_rl.report.plots import Draw, Rows
from spark_rl.report.text import count, number, seconds


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure before its data is known.

    `needs` are the columns of which one has to have a number, or there is nothing to see; `absent` says so. `draw` gets
    the rows of `sql`, and `describe` makes of them the sentence that stands for the picture where it cannot be seen.
    """

    key: str  # unique; name of its PNG
    section: str
    title: str
    caption: str
    sql: str
    needs: tuple[str, ...]
    absent: str
    draw: Callable[[Rows], Draw]
    describe: Callable[[Rows], str]
    small: bool = False  # one of several beside each other


_NO_EPISODE = "No episode has ended in this run yet."

# column of the SQL below -> (label, colour), in the order in which an iteration spends the time
TIME_PARTS = {
    "rollout_s": ("collecting", "teal"),
    "commit_s": ("committing", "violet"),
    "read_s": ("reading back", "grey"),
    "learn_s": ("learning", "blue"),
    "evaluation_s": ("evaluating", "orange"),
    "other_s": ("saving and the rest", "rose"),
}

_TIME_SQL = """\
SELECT
  iteration,
  COALESCE(time_rollout_s, 0) AS rollout_s,
  COALESCE(time_commit_s, 0) AS commit_s,
  COALESCE(time_read_s, 0) AS read_s,
  COALESCE(time_learn_s, 0) AS learn_s,
  COALESCE(time_evaluation_s, 0) AS evaluation_s,
  time_iteration_s - COALESCE(time_rollout_s, 0) - COALESCE(time_commit_s, 0) - COALESCE(time_read_s, 0)
    - COALESCE(time_learn_s, 0) - COALESCE(time_evaluation_s, 0) AS other_s
FROM iterations
WHERE time_iteration_s IS NOT NULL
ORDER BY iteration"""


def _learner(column: str, title: str, color: str, unit: str) -> Figure:
    """A small figure of one `learner/` metric."""
    name = f"learner/{column}"
    caption = metrics.NAMES[name]
    return Figure(
        key=column,
        section="Learner",
        title=title,
        caption=caption[0].upper() + caption[1:] + ".",
        sql=f"SELECT env_steps, learner_{column}\nFROM iterations\nORDER BY iteration",
        needs=(f"learner_{column}",),
        absent="This run does not report it.",
        draw=lambda rows: plots.line(rows, f"learner_{column}", color=color, unit=unit),
        describe=lambda rows: _from_to(title, rows, f"learner_{column}", "env_steps", "env steps"),
        small=True,
    )


def _from_to(what: str, rows: Rows, name: str, at: str, unit: str) -> str:
    known = [row for row in rows if row[name] is not None]
    if not known:
        return f"{what}: no numbers yet."
    first, last = known[0], known[-1]
    return (
        f"{what}: {number(first[name])} at {count(first[at])} {unit}, {number(last[name])} at {count(last[at])} {unit}."
    )


def _learning(rows: Rows) -> str:
    sentence = _from_to("Line chart of the mean return", rows, "return_mean", "env_steps", "env steps")
    evaluated = [row for row in rows if row["evaluation_return_mean"] is not None]
    if not evaluated:
        return sentence
    last = evaluated[-1]["evaluation_return_mean"]
    return f"{sentence} Greedy evaluations are points on it; the last one is {number(last)}."


def _times(rows: Rows) -> str:
    sums = {label: sum(row[name] for row in rows) for name, (label, _) in TIME_PARTS.items()}
    total = sum(sums.values()) or 1.0
    shares = ", ".join(f"{label} {seconds(spent)} ({spent / total:.0%})" for label, spent in sums.items())
    return f"Stacked bars of the seconds of every iteration. In all: {shares}."


FIGURES = (
    Figure(
        key="learning_curve",
        section="Learning",
        title="Learning curve",
        caption="Undiscounted return of the episodes that ended in each iteration, played by the exploring policy, "
        "and greedy evaluations of what was learned from them.",
        sql="SELECT env_steps, return_mean, return_p25, return_p75,\n"
        "  evaluation_return_mean, evaluation_return_low, evaluation_return_high\n"
        "FROM learning_curve\nORDER BY iteration",
        needs=("return_mean", "evaluation_return_mean"),
        absent=_NO_EPISODE,
        draw=lambda rows: plots.curve(rows, prefix="return", color="blue", unit="return", evaluations=True),
        describe=_learning,
    ),
    Figure(
        key="returns_by_policy_version",
        section="Learning",
        title="Return by policy version",
        caption="How returns spread under every version of the policy. An episode that several versions played counts "
        "for the last of them; episodes that were cut are left out.",
        sql="SELECT policy_version, num_episodes,\n"
        "  return_p05, return_p25, return_p50, return_p75, return_p95, return_iqm\n"
        "FROM returns_by_policy_version\nORDER BY policy_version",
        needs=("return_p50",),
        absent=_NO_EPISODE,
        draw=lambda rows: plots.boxes(rows, unit="return"),
        describe=lambda rows: _from_to("Median return by version", rows, "return_p50", "policy_version", "(version)"),
    ),
    Figure(
        key="episode_length",
        section="Learning",
        title="Episode length",
        caption="Env steps from reset to end of the episodes that ended in each iteration.",
        sql="SELECT env_steps, length_mean, length_p25, length_p75\nFROM learning_curve\nORDER BY iteration",
        needs=("length_mean",),
        absent=_NO_EPISODE,
        draw=lambda rows: plots.curve(rows, prefix="length", color="teal", unit="env steps an episode"),
        describe=lambda rows: _from_to("Mean episode length", rows, "length_mean", "env_steps", "env steps"),
    ),
    _learner("policy_loss", "Policy loss", "blue", ""),
    _learner("value_loss", "Value loss", "orange", "reward units²"),
    _learner("entropy", "Entropy", "teal", "nats"),
    _learner("approx_kl", "KL divergence", "violet", "nats"),
    _learner("clip_fraction", "Clipped share", "rose", "share of rows"),
    _learner("explained_variance", "Explained variance", "blue", ""),
    Figure(
        key="throughput",
        section="Speed",
        title="Throughput",
        caption="Committed env steps per second of wall time. The first iteration also starts the workers.",
        sql="SELECT iteration, throughput_env_steps_per_s AS env_steps_per_s,\n"
        "  throughput_rollout_env_steps_per_s AS rollout_env_steps_per_s\n"
        "FROM iterations\nORDER BY iteration",
        needs=("env_steps_per_s",),
        absent="No iteration is complete yet.",
        draw=plots.speeds,
        describe=lambda rows: _from_to("Env steps per second", rows, "env_steps_per_s", "iteration", "(iteration)"),
    ),
    Figure(
        key="time",
        section="Speed",
        title="Where the time went",
        caption="Wall time of every iteration by what it was spent on.",
        sql=_TIME_SQL,
        needs=("rollout_s",),
        absent="No iteration is complete yet.",
        draw=lambda rows: plots.stacked(rows, TIME_PARTS),
        describe=_times,
    ),
)
