"""Names inside a run directory: the contract between tasks, driver, learner and whoever reads the tables.

Names with a leading underscore are invisible to Spark, so a plain read of a table never meets them.
"""

from __future__ import annotations

RUN = "run.json"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
COMMITS = "_commits"
CHECKPOINTS = "_checkpoints"
STAGING = "_staging"

TRANSITIONS = "transitions"
EPISODES = "episodes"
CURSORS = "_cursors"
TABLES = (TRANSITIONS, EPISODES, CURSORS)  # in the order in which an iteration publishes them
_SUFFIX = {TRANSITIONS: "parquet", EPISODES: "parquet", CURSORS: "safetensors"}


def part(table: str, group: int) -> str:
    """File name of one group's share of a table."""
    return f"part-{group:05d}.{_SUFFIX[table]}"


def committed(table: str, iteration: int) -> str:
    """Directory of an iteration's files once they are published."""
    return f"{table}/iteration={iteration}"


def staged(table: str, iteration: int) -> str:
    """Directory in which tasks leave an iteration's files before the driver publishes them."""
    return f"{STAGING}/{iteration}/{table}"


def commit(iteration: int) -> str:
    """The commit record."""
    return f"{COMMITS}/{iteration}.json"


def weights(policy_version: int) -> str:
    """The weights that act under one policy version."""
    return f"policies/policy_version={policy_version}/weights.safetensors"


def checkpoint(iteration: int) -> str:
    """Directory of the learner's state after learning from an iteration."""
    return f"{CHECKPOINTS}/{iteration}"
