"""Fitted Q iteration as a name in a config. It runs in SQL (`sql.fitted_q`), and has no update of its own."""

from __future__ import annotations

from typing import Any

from spark_rl.algorithms.fitted_q_config import FittedQConfig
from spark_rl.errors import UserError


class FittedQ:
    """What `train` finds under that name: a line that says what to type instead."""

    Config = FittedQConfig

    def __init__(self, *_: Any, **__: Any) -> None:
        raise UserError("algorithm.name", "'fitted_q', which learns from a table", "an algorithm that collects",
                        "use `spark-rl offline CONFIG --data URI`")  # fmt: skip
