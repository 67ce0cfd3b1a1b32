"""What an environment returned is checked once per fragment, over whole arrays; a bad value is traced to its step."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from spark_rl.envs.group import Group, SyncGroup
from spark_rl.errors import RunError
from spark_rl.rollout.episodes import Places
from spark_rl.rollout.fragment import Rows
from spark_rl.schema.spaces import Leaf, SpaceSpec


def check(rows: Rows, places: Places, space: SpaceSpec, group: Group, env_id: str, first_env: int) -> None:
    """RunError naming environment, seed, step and action of the first value that is not finite or not in its space.

    Bounds of boxes are not enforced: many well-known environments leave theirs by a little (CartPole's last
    observation does), and a learner does not depend on them. Shapes were enforced when the values were recorded.
    """

    def fail(row: int, got: str, wanted: str) -> NoReturn:
        env, episode = int(places.env[row]), int(places.ordinal[row])
        seed = group.episode_seed(env, episode) if isinstance(group, SyncGroup) else "the vector environment's own"
        raise RunError(
            where=f"environment {env_id} number {first_env + env}, episode {episode} (seed {seed}), "
            f"step {places.t[row]}, action {rows.action[row]!r}",
            got=got, wanted=wanted, todo="mend the environment; everything committed stays readable",
        )  # fmt: skip

    bad = ~np.isfinite(rows.reward)
    if bad.any():
        fail(int(bad.argmax()), f"reward {rows.reward[bad][0]}", "a finite reward")
    for leaf in space.leaves:
        name = f"observation {leaf.name!r}" if leaf.name else "observation"
        row = _first_bad(leaf, rows.observation[leaf.name])
        if row >= 0:
            value = rows.observation[leaf.name][row]
            if row and places.env[row - 1] == places.env[row] and places.t[row]:  # the step before returned it
                fail(row - 1, f"next {name} {value!r}", _wanted(leaf))
            fail(row, f"{name} {value!r}", _wanted(leaf))
        last = _first_bad(leaf, rows.final_observation[leaf.name])
        if last >= 0:
            fail(int(rows.last_row[last]), f"next {name} {rows.final_observation[leaf.name][last]!r}", _wanted(leaf))


def _first_bad(leaf: Leaf, values: np.ndarray) -> int:
    """Index of the first row with a value that cannot be, or -1."""
    if leaf.kind == "box":
        if leaf.dtype != "float32" or np.isfinite(values).all():
            return -1
        bad = ~np.isfinite(values)
    else:
        start = np.array(leaf.start or (0,)).reshape(leaf.shape if leaf.start else ())
        n = np.array(leaf.n or (2,)).reshape(leaf.shape if leaf.n else ())
        bad = (values < start) | (values >= start + n)
    rows = bad.reshape(len(values), -1).any(axis=1)
    return int(rows.argmax()) if rows.any() else -1


def _wanted(leaf: Leaf) -> str:
    if leaf.kind == "box":
        return "finite numbers"
    return f"a value of its {leaf.kind} space (n {list(leaf.n) or 2}, start {list(leaf.start) or 0})"
