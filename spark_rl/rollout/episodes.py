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
    env = np.repeat(np.arange(num_envs), rows.counts)
    ended_row = rows.terminated | rows.truncated
    first_row = np.cumsum(rows.counts) - rows.counts
    opens = np.zeros(rows.num_rows, bool)  # rows that open a segment: a stretch of one episode within the fragment
    opens[first_row[rows.counts > 0]] = True
    opens[1:] |= ended_row[:-1]
    start = np.flatnonzero(opens)
    segment = np.cumsum(opens) - 1
    segment_env = env[start]
    goes_on = np.isin(start, first_row)  # an environment's first segment may continue an episode
    carried = lambda values, otherwise: np.where(goes_on, values[segment_env], otherwise)  # noqa: E731

    t = np.arange(rows.num_rows) - start[segment] + carried(cursor.t, 0)[segment]
    first_segment = np.searchsorted(segment_env, np.arange(num_envs))
    ordinal = cursor.carried.episode[env] + segment - first_segment[env]
    places = Places(env=env, ordinal=ordinal, t=t.astype(np.int32))

    last = np.append(start[1:], rows.num_rows)[: len(start)] - 1
    returns = np.add.reduceat(rows.reward, start) if len(start) else np.zeros(0)
    returns = returns + carried(cursor.episode_return, 0.0)
    began = carried(np.where(cursor.t > 0, cursor.first_iteration, iteration), iteration)
    oldest = np.minimum(carried(np.where(cursor.t > 0, cursor.policy_version_min, policy_version), policy_version),
                        policy_version)  # fmt: skip
    ended = ended_row[last]
    chosen = np.ones_like(ended) if cut else ended
    episodes = Episodes(
        env=segment_env[chosen],
        ordinal=ordinal[last][chosen],
        length=t[last][chosen] + 1,
        episode_return=returns[chosen],
        terminated=rows.terminated[last][chosen],
        truncated=rows.truncated[last][chosen],
        first_iteration=began[chosen],
        policy_version_min=oldest[chosen],
    )
    _advance(cursor, segment_env, chosen, t[last] + 1, returns, began, oldest)
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
