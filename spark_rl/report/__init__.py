"""A run on one page that can be shown to anyone: `build(run_uri, spark=...)`."""

from spark_rl.report.write import build

__all__ = ["build"]
