"""Reinforcement learning on the Spark cluster you already have.

The names below are what a user types; each is loaded when it is first touched, so that a Python worker which only steps
environments never pays for the learner's imports (torch alone costs a worker 3.3 s and 180 MB).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spark_rl.version import __version__ as __version__

if TYPE_CHECKING:
    from spark_rl.config import RunConfig as RunConfig
    from spark_rl.config import load_config as load_config
    from spark_rl.errors import RunError as RunError
    from spark_rl.errors import UserError as UserError
    from spark_rl.spark.session import get_session as get_session
    from spark_rl.train import evaluate_run as evaluate_run

_HOME = {
    "RunConfig": "spark_rl.config",
    "RunError": "spark_rl.errors",
    "UserError": "spark_rl.errors",
    "evaluate_run": "spark_rl.train",
    "get_session": "spark_rl.spark.session",
    "load_config": "spark_rl.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"spark_rl has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
