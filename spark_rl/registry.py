"""What can be named in a config, and where it lives. One line an algorithm."""

from importlib import import_module
from typing import Any

from spark_rl.errors import UserError

ALGORITHMS = {
    "ppo": "spark_rl.algorithms.ppo:PPO",
}


def load(name: str) -> Any:
    """The algorithm class of that name; its module is imported now, and not before.

    Raises UserError listing the known names.
    """
    if name not in list(ALGORITHMS):  # a list, because what a file calls a name may not be hashable
        raise UserError("algorithm.name", repr(name), f"one of: {', '.join(sorted(ALGORITHMS))}", "correct the name")
    module, attribute = ALGORITHMS[name].split(":")
    return getattr(import_module(module), attribute)
