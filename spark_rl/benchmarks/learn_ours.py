"""One seed of `benchmark learn`, ours: what `spark-rl train` does, with a stop rule. Run with a JSON trial."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any


def main(trial: dict[str, Any]) -> dict[str, float]:
    """Train until the target is reached; see `learn` for what the clocks cover."""
    began = time.perf_counter()
    from spark_rl.config import load_config
    from spark_rl.data.store import RunStore
    from spark_rl.learner import Learner  # noqa: F401 (torch is imported with it, before the clock as the peer's is)
    from spark_rl.spark.driver import SparkCollector
    from spark_rl.spark.session import get_session
    from spark_rl.train import train

    spark = get_session("spark-rl benchmark learn")
    SparkCollector(spark).close()  # a session is ready when its Python workers are
    config = load_config(trial["config"], [f"run.seed={trial['seed']}"])
    iterations = math.ceil(trial["block_steps"] / config.rows_per_iteration)
    config = load_config(trial["config"], [
        f"run.seed={trial['seed']}", f"evaluation.every={iterations}", f"evaluation.episodes={trial['episodes']}",
        f"evaluation.stop_at_return={float(trial['target'])}",
    ])  # fmt: skip
    start_s = time.perf_counter() - began
    began = time.perf_counter()
    summary = train(config, trial["run_uri"], spark=spark)
    wall_s = time.perf_counter() - began
    spark.stop()
    evaluation_s = sum(row.get("time/evaluation_s", 0.0) for row in RunStore(trial["run_uri"]).read_metrics())
    return {"train_s": wall_s - evaluation_s, "start_s": start_s, "evaluation_s": evaluation_s,
            "env_steps": summary["env_steps"], "return_mean": summary["evaluation_return_mean"]}  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))) + "\n")
