"""Runs opened for SQL: what each has committed, and the `run_id` that tells it from the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pyarrow as pa

from spark_rl.data.store import Commit, RunStore
from spark_rl.errors import UserError
from spark_rl.schema import layout, tables
from spark_rl.schema.spaces import SpaceSpec


class Run:
    """One run as it stands when it is opened: what gets committed later is not seen."""

    def __init__(self, uri: str) -> None:
        self.store = RunStore(uri)
        self.uri = self.store.name.rstrip("/")  # without credentials: fit for messages and columns
        self.description = self.store.describe()
        self.commits: list[Commit] = [self.store.commit(iteration) for iteration in self.store.iterations()]
        self.run_id = ""  # told apart from other runs by `open_runs`

    def schema(self, table: str) -> pa.Schema:
        """The columns that the table has by the treaty."""
        if table == layout.EPISODES:
            return tables.EPISODES
        plan = self.description["env_plan"]
        spaces = (SpaceSpec.from_json(json.dumps(plan[name])) for name in ("observation_space", "action_space"))
        return tables.transitions(*spaces)


def open_runs(uris: Sequence[str]) -> list[Run]:
    """The runs with a `run_id` each: the directory's name, with -2, -3, ... where names are equal.

    Raises UserError for a place without a run and for one that is named twice, whose rows would count twice.
    """
    runs: list[Run] = []
    for uri in uris:
        run = Run(uri)
        if run.store.uri in {other.store.uri for other in runs}:
            raise UserError(where=f"run {run.uri}", got="named twice", wanted="every run once", todo="take one out")
        name = run.store.root.path.rstrip("/").rpartition("/")[2]
        taken = {other.run_id for other in runs}
        run.run_id = next(known for known in _candidates(name) if known not in taken)
        runs.append(run)
    return runs


def _candidates(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1
