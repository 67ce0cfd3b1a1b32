"""Learning from a stored table alone: no environment is stepped. The result is a run like any other, without rows."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from spark_rl import builder
from spark_rl.config import RunConfig
from spark_rl.data.store import RunStore
from spark_rl.errors import UserError
from spark_rl.experience import Progress, Silent
from spark_rl.policies import weights as codec
from spark_rl.policies.states import StateIndex
from spark_rl.policies.tabular import num_actions

# A table of weights is one file; more pairs than this would not fit the machine that reads it.
_MOST_PAIRS = 100_000_000


def offline(
    config: RunConfig, data_uri: str, run_uri: str, *, spark: Any, progress: Progress | None = None
) -> dict[str, Any]:
    """Learn `config.algorithm` from the transitions of the run `data_uri`; a summary.

    Of the config, [algorithm] counts; spaces and environment are the data's. Raises UserError for an algorithm that
    needs an environment, and for a directory without data.
    """
    if not getattr(config.algorithm, "offline_only", False):
        raise UserError("algorithm.name", repr(config.algorithm_name), "'fitted_q'", "use `spark-rl train`")
    from spark_rl.sql.fitted_q import fitted_q  # deferred: it names pyspark

    watcher, began, settings = progress or Silent(), time.perf_counter(), config.algorithm.model_dump()
    data = RunStore(data_uri)
    stored = data.describe()
    if stored["config"]["env"]["id"] != config.env.id:
        raise UserError("--data", f"transitions of {stored['config']['env']['id']}", f"of {config.env.id}",
                        "name the environment of the data in env.id")  # fmt: skip
    env = builder.stored_plan(config, stored)
    states, actions = StateIndex(env.observation), num_actions(env.action.only)
    if states.size * actions > _MOST_PAIRS:
        raise UserError(f"--data {data.name}", f"{states.size * actions:,} pairs", f"at most {_MOST_PAIRS:,}",
                        "make the observation coarser with a wrapper")  # fmt: skip
    store = RunStore(run_uri)
    store.create(builder.description(config, env) | {"data": data.name})
    watcher.start(store.name, settings["max_sweeps"])
    changes: list[float] = []

    def swept(sweep: int, change: float) -> None:
        changes.append(change)
        row = {"iteration": sweep - 1, "learner/change_max": change}
        store.append_metrics([row])
        watcher.iteration(sweep - 1, row)

    keys = ("discount", "initial_value", "max_sweeps", "tolerance")
    found = fitted_q(spark, data_uri, env.observation, env.action, swept=swept, **{k: settings[k] for k in keys})
    table = found.toArrow()
    # What was never tried is never chosen: nothing is known about it.
    q = np.full((states.size, actions), -np.inf)
    q[table["state"].to_numpy(), table["action"].to_numpy()] = table["q"].to_numpy()
    content = codec.encode({"q": q})
    store.write_weights(len(changes), content)
    return {
        "run": store.name,
        "data": data.name,
        "sweeps": len(changes),
        "change_max": changes[-1],
        "converged": changes[-1] <= settings["tolerance"],
        "rows": int(table["num_rows"].to_numpy().sum()),
        "pairs": len(table),
        "policy_version": len(changes),
        "weights_sha256": codec.sha256(content),
        "wall_s": round(time.perf_counter() - began, 3),
    }
