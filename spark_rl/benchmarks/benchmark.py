"""What a benchmark is, and the table of them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from spark_rl.benchmarks.comparison import Comparison
from spark_rl.errors import UserError

# name -> the module whose BENCHMARK it is; its docstring says what is measured, and why the floor is fair.
MODULES = {
    "rollout": "spark_rl.benchmarks.rollout",
    "iteration": "spark_rl.benchmarks.iteration",
    "write": "spark_rl.benchmarks.write",
    "feed": "spark_rl.benchmarks.feed",
    "scale": "spark_rl.benchmarks.scale",
    "memory": "spark_rl.benchmarks.memory",
    "learn": "spark_rl.benchmarks.learn",
    "update": "spark_rl.benchmarks.update",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a benchmark works."""

    uri: str  # an empty directory that the tasks reach, for its runs
    spark: Any = None  # the session, for a benchmark that asked for one


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """Its settings (a frozen dataclass), the smallest ones that still go through all of it, and the measurement."""

    settings: Any
    quick: Any
    needs_spark: bool
    run: Callable[[Any, Place], Iterator[Comparison]]

    def configured(self, name: str, options: Mapping[str, Any], *, quick: bool) -> Any:
        """The settings with the options that the user gave. Raises UserError for an option that it does not have."""
        known = [field.name for field in dataclasses.fields(self.settings)]
        for option in options:
            if option not in known:
                names = ", ".join(f"--{key.replace('_', '-')}" for key in known)
                raise UserError(f"benchmark {name}", f"the option --{option.replace('_', '-')}", f"one of {names}",
                                "take it out")  # fmt: skip
        return dataclasses.replace(self.quick if quick else self.settings, **options)


def load(name: str) -> Benchmark:
    """The benchmark of that name. Raises UserError listing the names."""
    if name not in MODULES:
        close = difflib.get_close_matches(name, MODULES, n=1)
        todo = f"did you mean {close[0]!r}?" if close else "choose one of these"
        raise UserError("benchmark", repr(name), f"one of {', '.join(MODULES)}", todo)
    found: Benchmark = import_module(MODULES[name]).BENCHMARK
    return found
