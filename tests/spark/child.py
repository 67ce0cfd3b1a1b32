"""A driver in a process of its own: `python child.py '{"spark.master": ...}'`, one JSON request a line on stdin.

A request is {"config": TOML file, "run": URI, "resume": bool, "plan": fields of chaos.Plan or null}. The answer is one
JSON line on stdout: {"summary": ...} or {"error": type, "message": ...}.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import chaos

from spark_rl import train as training
from spark_rl.config import load_config
from spark_rl.errors import SparkRLError
from spark_rl.spark import driver, executor
from spark_rl.spark.session import get_session


def serve(conf: dict[str, str]) -> None:
    spark = get_session("spark_rl tests", conf=conf)
    spark.sparkContext.addPyFile(str(Path(chaos.__file__)))
    print(json.dumps({"ready": spark.sparkContext.master}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        plan = request["plan"]
        function = executor.collect_partition
        if plan:
            tasks = tuple((iteration, group) for iteration, group in plan.pop("tasks"))
            function = partial(chaos.collect_partition, chaos.Plan(**plan, tasks=tasks))
        driver.collect_partition = function
        try:
            config = load_config(request["config"])
            answer = {"summary": training.train(config, request["run"], spark=spark, resume=request["resume"])}
        except SparkRLError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)
    spark.stop()


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
