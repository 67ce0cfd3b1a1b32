"""Rows as sequences for truncated back-propagation through time. N rows, B sequences of at most T steps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spark_rl.data.batch import Batch
from spark_rl.policies.networks import Memory


class Sequences:
    """A batch's rows cut into sequences of at most `length` steps, each with the state that was stored before it.

    The gradient stops where a sequence begins. Episodes may begin inside one: what was remembered is forgotten there.
    Source: Kapturowski et al. 2019 (R2D2), section 3: the stored-state strategy.
    """

    def __init__(self, batch: Batch, state: Tensor, length: int) -> None:
        self._state, self._length = state, length
        last, ended = np.zeros(batch.num_rows, bool), batch.terminated | batch.truncated
        last[batch.last_row] = True
        self._fresh = np.append(True, ended[:-1])  # [N]: the episode begins here, or a sequence does
        # Where the next row is not the successor, yet the episode did not end, its stored state has to be taken up.
        joint = np.append(True, (np.diff(batch.env_index) != 0) | (last & ~ended)[:-1])
        position = np.arange(batch.num_rows)
        since = position - np.maximum.accumulate(np.where(joint, position, 0))
        first = np.flatnonzero(since % length == 0)
        self._first, self._lengths = first, np.diff(first, append=batch.num_rows)
        self._fresh[first] = False  # the stored state is the one to begin with, whether an episode begins or not

    def __len__(self) -> int:
        """B."""
        return len(self._first)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[int], list[Memory]]:
        """One epoch: all sequences in random order, in minibatches of `size` rows at most but one sequence at least.

        Returns the rows in their new order int64 [N], the number of rows of each minibatch, and its memory.
        """
        each = max(1, size // self._length)
        groups = np.array_split(rng.permutation(len(self)), -(-len(self) // each))
        drawn = [self._minibatch(group) for group in groups]
        return np.concatenate([rows for rows, _ in drawn]), [len(rows) for rows, _ in drawn], [m for _, m in drawn]

    def _minibatch(self, chosen: np.ndarray) -> tuple[np.ndarray, Memory]:
        first, lengths = self._first[chosen], self._lengths[chosen]
        column = np.repeat(np.arange(len(chosen)), lengths)
        step = np.arange(len(column)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = first[column] + step
        place = step * len(chosen) + column
        fresh = np.zeros(int(lengths.max()) * len(chosen), bool)
        fresh[place] = self._fresh[rows]
        device = self._state.device
        memory = Memory(
            state=self._state[torch.from_numpy(first).to(device)],
            fresh=torch.from_numpy(fresh.reshape(-1, len(chosen))).to(device),
            place=torch.from_numpy(place).to(device),
        )
        return rows, memory


def single_steps(state: Tensor) -> Memory:
    """N sequences of one step each, from the states [N, S]."""
    fresh = torch.zeros(1, len(state), dtype=torch.bool, device=state.device)
    return Memory(state, fresh, torch.arange(len(state), device=state.device))
