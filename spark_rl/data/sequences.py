"""Rows as time-major fragments, for whatever has to look along time. N rows, T env steps, B fragments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Fragments:
    """Where each row lies in a [T, B] grid of fragments of unequal length; T is that of the longest.

    A fragment is a run of rows of one environment. Shorter ones are padded at their end with zeros, False, or what
    the caller asks for; a scan backwards in time starts in the padding, so the padding must leave the scan's state
    at zero (for `returns.gae` zeros and False do).
    """

    length: int  # T
    env_index: np.ndarray  # [B], the environment of each fragment
    place: np.ndarray  # int64 [N], position of each row in the grid, flattened row-major

    def pack(self, rows: np.ndarray) -> np.ndarray:
        """[N] -> [T, B], padded with zero or False."""
        if rows.shape != self.place.shape:
            raise ValueError(f"rows is {list(rows.shape)}; {list(self.place.shape)} were laid out")
        grid = np.zeros(self.length * len(self.env_index), rows.dtype)
        grid[self.place] = rows
        return grid.reshape(self.length, len(self.env_index))

    def unpack(self, grid: np.ndarray) -> np.ndarray:
        """[T, B] -> [N], without the padding."""
        if grid.shape != (self.length, len(self.env_index)):
            raise ValueError(f"grid is {list(grid.shape)}; {[self.length, len(self.env_index)]} was laid out")
        rows: np.ndarray = grid.reshape(-1)[self.place]
        return rows


def fragments(env_index: np.ndarray) -> Fragments:
    """Lays out rows whose environments' rows are contiguous and in order of time; `env_index` is [N], N > 0.

    Raises ValueError where there are no rows.
    """
    if len(env_index) == 0:
        raise ValueError("env_index is empty; a batch needs at least one row")
    first = np.flatnonzero(np.diff(env_index, prepend=env_index[0] - 1))
    lengths = np.diff(first, append=len(env_index))
    column = np.repeat(np.arange(len(first)), lengths)
    time = np.arange(len(env_index)) - first[column]
    return Fragments(int(lengths.max()), env_index[first], time * len(first) + column)


def successor_values(value: np.ndarray, last_row: np.ndarray, final_value: np.ndarray) -> np.ndarray:
    """The value of each row's true successor: the next row's, or for `last_row` [M] its `final_value` [M]. [N]."""
    result = np.empty_like(value)
    result[:-1] = value[1:]
    result[last_row] = final_value
    return result
