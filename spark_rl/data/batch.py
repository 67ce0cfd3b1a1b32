"""The rows a learner gets: plain arrays, in the order in which the environments lived them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Batch:
    """N transitions. Rows of one environment are contiguous and ordered by time.

    The successor of row i is row i + 1, unless i is in `last_row`: those M rows end an episode or the fragment and
    carry their true successor (before any reset) in `final_observation`. Environments may have different numbers of
    rows, because a vector environment in NEXT_STEP mode spends steps on resets, which are no transitions.
    """

    observation: dict[str, np.ndarray]  # leaf name -> [N, *shape]
    action: np.ndarray  # as the environment got it, [N] or [N, *shape]
    raw_action: np.ndarray | None  # the sample before clipping, to which the log-probability belongs; box actions only
    reward: np.ndarray  # float64 [N], the environment's own scale
    terminated: np.ndarray  # bool [N], a real end: nothing follows
    truncated: np.ndarray  # bool [N], a time limit: the successor's value counts
    action_log_prob: np.ndarray  # float32 [N], natural log, of the policy that acted
    policy_version: np.ndarray  # int64 [N]
    episode_id: np.ndarray  # int64 [N]
    t: np.ndarray  # int32 [N], step within the episode from 0
    env_index: np.ndarray  # int32 [N], unique in the run
    last_row: np.ndarray  # int64 [M], ascending
    final_observation: dict[str, np.ndarray]  # leaf name -> [M, *shape]
    state: np.ndarray | None = None  # float32 [N, S], the policy's state before the step; recurrent policies only

    @property
    def num_rows(self) -> int:
        """Transitions in the batch (N)."""
        return len(self.reward)
