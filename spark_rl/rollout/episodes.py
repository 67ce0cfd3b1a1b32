"""Which episode every row belongs to, and a row for each episode that ended: derived from the rows, all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spark_rl.rollout.cursor import Cursor
from spark_rl.rollout.fragment import Rows

# episode_id = environment * 2**32 + ordinal: unique in the run, the same in every attempt, and no counter to share.
ORDINAL_BITS = 32


@dataclass(frozen=True, slots=True)
class Episodes:
    """K episodes that ended in the fragment, in the order of their rows, or were cut at its end."""

    env: np.ndarray  # int64 [K], number within the group
    ordinal: np.ndarray  # int64 [K]
    length: np.ndarray  # int64 [K], env steps since the episode began, earlier iterations included
    episode_return: np.ndarray  # float64 [K]
    terminated: np.ndarray  # bool [K]
    truncated: np.ndarray  # bool [K]
    first_iteration: np.ndarray  # int64 [K]
    policy_version_min: np.ndarray  # int64 [K]


@dataclass(frozen=True, slots=True)
class Places:
    """For each of R rows: its environment (within the group), the ordinal of its episode, its step in the episode."""

    env: np.ndarray
    ordinal: np.ndarray
    t: np.ndarray


def locate(rows: Rows, cursor: Cursor, iteration: int, policy_version: int, *, cut: bool) -> tuple[Places, Episodes]:
    """Walk the rows' episodes, and move the cursor's counters to the fragment's end.

    `cursor` says where the fragment began; its `t`, `episode_return`, `first_iteration` and `policy_version_min` are
    replaced. With `cut`, unfinished episodes count as ended here, neither terminated nor truncated.
    """
    num_envs = len(rows.counts)
    ended_row = rows.terminated | rows.truncated
    first_row = (np.cumsum(rows.counts) - rows.counts)[rows.counts > 0]
    # A segment is a stretch of one episode within the fragment.
    opens = np.zeros(rows.num_rows + 1, bool)
    opens[first_row] = True
    opens[1:] |= ended_row
    start = np.flatnonzero(opens[:-1])
    length = np.diff(np.append(start, rows.num_rows))
    last = start + length - 1
    env = np.searchsorted(np.cumsum(rows.counts), start, side="right")
    goes_on = np.isin(start, first_row)  # an environment's first segment may continue an episode

    def carried(values: np.ndarray, otherwise: float) -> np.ndarray:
        return np.where(goes_on, values[env], otherwise)

    begun = cursor.t > 0
    t_start = carried(cursor.t, 0).astype(np.int64)
    returns = np.add.reduceat(rows.reward, start) if len(start) else np.zeros(0)
    returns = returns + carried(cursor.episode_return, 0.0)
    began = carried(np.where(begun, cursor.first_iteration, iteration), iteration)
    oldest = carried(np.where(begun, cursor.policy_version_min, policy_version), policy_version)
    ordinal = cursor.carried.episode[env] + np.arange(len(start)) - np.searchsorted(env, np.arange(num_envs))[env]
    places = Places(
        env=np.repeat(env, length),
        ordinal=np.repeat(ordinal, length),
        t=(np.arange(rows.num_rows) - np.repeat(start - t_start, length)).astype(np.int32),
    )

    over = np.ones(len(start), bool) if cut else ended_row[last]
    length = t_start + length
    episodes = Episodes(
        env=env[over],
        ordinal=ordinal[over],
        length=length[over],
        episode_return=returns[over],
        terminated=rows.terminated[last][over],
        truncated=rows.truncated[last][over],
        first_iteration=began[over],
        policy_version_min=oldest[over],
    )
    _advance(cursor, env, over, length, returns, began, oldest)
    return places, episodes


def _advance(
    cursor: Cursor, env: np.ndarray, over: np.ndarray, length: np.ndarray, returns: np.ndarray, began: np.ndarray,
    oldest: np.ndarray,
) -> None:  # fmt: skip
    """Segments are in time order, so where an environment has several, its last one is what stays."""
    cursor.t[env] = np.where(over, 0, length)
    cursor.episode_return[env] = np.where(over, 0.0, returns)
    cursor.first_iteration[env] = began
    cursor.policy_version_min[env] = oldest
