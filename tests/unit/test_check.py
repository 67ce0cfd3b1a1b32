"""What environments may not return, found in whole arrays and traced back to one step of one environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spark_rl.errors import RunError
from spark_rl.rollout.check import check
from spark_rl.rollout.episodes import Places
from spark_rl.rollout.fragment import Rows
from spark_rl.schema.spaces import Leaf, SpaceSpec

LEAVES = {
    "box": Leaf("", "box", "float32", (2,)),
    "discrete": Leaf("", "discrete", "int64", (), n=(3,), start=(-1,)),
    "multi": Leaf("", "multi_discrete", "int64", (2,), n=(2, 4), start=(0, 1)),
    "binary": Leaf("", "multi_binary", "int8", (2,)),
}
FINE = {"box": [[0, 1e30]], "discrete": [-1, 1], "multi": [[0, 1], [1, 4]], "binary": [[0, 1]]}
BAD = {
    "box": [[np.nan, 0], [0, np.inf]],
    "discrete": [-2, 2],
    "multi": [[0, 0], [2, 1], [0, 5]],
    "binary": [[0, 2], [-1, 0]],
}
SEED = r"\(seed the vector environment's own\)"
WHERE = rf"environment Toy-v0 number 1{{env}}, episode {{episode}} {SEED}, step {{t}}, action .*{{action}}"


def rows_of(leaf: Leaf, fine: Any) -> tuple[Rows, Places]:
    """Two environments of 4 rows each; the first ends an episode in its row 1."""
    observation = np.array([fine] * 8, leaf.dtype)
    last_row = np.array([1, 3, 7])
    none = np.zeros(8, bool)
    rows = Rows(observation={"": observation}, action=np.arange(40, 48), raw_action=None, reward=np.zeros(8),
                terminated=none,
                truncated=none, log_prob=none, state=None, counts=np.array([4, 4]), last_row=last_row,
                final_observation={"": observation[last_row].copy()})  # fmt: skip
    places = Places(
        env=np.repeat([0, 1], 4), ordinal=np.array([5, 5, 6, 6, 2, 2, 2, 2]), t=np.array([8, 9, 0, 1, 0, 1, 2, 3])
    )
    return rows, places


def run(rows: Rows, places: Places, leaf: Leaf) -> None:
    check(rows, places, SpaceSpec((leaf,)), object(), "Toy-v0", 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", LEAVES)
def test_what_is_in_its_space_passes(kind: str) -> None:
    for value in FINE[kind]:
        run(*rows_of(LEAVES[kind], value), LEAVES[kind])


@pytest.mark.parametrize("kind", LEAVES)
@pytest.mark.parametrize(
    ("row", "place"),
    [
        (0, {"env": 0, "episode": 5, "t": 8, "action": 40}),  # seen at the fragment's beginning
        (1, {"env": 0, "episode": 5, "t": 8, "action": 40}),  # returned by the step before
        (2, {"env": 0, "episode": 6, "t": 0, "action": 42}),  # returned by a reset
        (4, {"env": 1, "episode": 2, "t": 0, "action": 44}),
        (7, {"env": 1, "episode": 2, "t": 2, "action": 46}),
    ],
)
def test_a_bad_observation_is_traced_to_the_step_that_returned_it(kind: str, row: int, place: dict[str, int]) -> None:
    for value in BAD[kind]:
        rows, places = rows_of(LEAVES[kind], FINE[kind][0])
        rows.observation[""][row] = value
        with pytest.raises(RunError, match=WHERE.format(**place)):
            run(rows, places, LEAVES[kind])


@pytest.mark.parametrize("kind", LEAVES)
def test_a_bad_final_observation_is_traced_to_its_row(kind: str) -> None:
    rows, places = rows_of(LEAVES[kind], FINE[kind][0])
    rows.final_observation[""][1] = BAD[kind][0]
    with pytest.raises(RunError, match=WHERE.format(env=0, episode=6, t=1, action=43) + ".*got next observation"):
        run(rows, places, LEAVES[kind])


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_no_number(reward: float) -> None:
    rows, places = rows_of(LEAVES["box"], FINE["box"][0])
    rows.reward[6] = reward
    where = WHERE.format(env=1, episode=2, t=2, action=46)
    with pytest.raises(RunError, match=f"{where}.*: got reward {reward}; wanted a finite reward; mend the environment"):
        run(rows, places, LEAVES["box"])
