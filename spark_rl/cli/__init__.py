"""The command line: `spark-rl VERB ...` on one machine, `spark-submit jobs/VERB.py ...` on a cluster."""

from spark_rl.cli.app import main

__all__ = ["main"]
