"""Ragged rows as [T, B]: every row in its place, and padding that changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from spark_rl.data.sequences import fragments, successor_values
from spark_rl.losses.returns import gae

LENGTHS = {3: 4, 0: 7, 5: 1, 2: 5}  # environment -> rows, in no particular order


def ragged() -> np.ndarray:
    return np.concatenate([np.full(length, env, np.int32) for env, length in LENGTHS.items()])


def test_every_row_is_where_a_loop_puts_it_and_comes_back() -> None:
    env_index = ragged()
    rows = np.arange(1.0, len(env_index) + 1)
    layout = fragments(env_index)
    want = np.zeros((7, 4))
    row = 0
    for column, length in enumerate(LENGTHS.values()):
        for t in range(length):
            want[t, column] = rows[row]
            row += 1
    assert_array_equal(layout.pack(rows), want)
    assert_array_equal(layout.env_index, list(LENGTHS))
    assert_array_equal(layout.unpack(want), rows)
    assert layout.pack(rows > 0).dtype == bool


def test_padding_does_not_reach_the_advantages() -> None:
    rng = np.random.default_rng(0)
    env_index = ragged()
    n = len(env_index)
    reward, value, next_value = rng.standard_normal((3, n))
    terminated = rng.random(n) < 0.2
    truncated = (rng.random(n) < 0.2) & ~terminated
    assert terminated.any() and truncated.any()
    columns = (reward, value, next_value, terminated, truncated)
    layout = fragments(env_index)
    together = layout.unpack(gae(*(torch.from_numpy(layout.pack(c)) for c in columns), discount=0.9, lam=0.8).numpy())
    alone = [
        gae(*(torch.from_numpy(c[env_index == env][:, None]) for c in columns), discount=0.9, lam=0.8).numpy()[:, 0]
        for env in LENGTHS
    ]
    assert_array_equal(together, np.concatenate(alone))


def test_the_last_row_of_an_environment_does_not_see_the_next_environment() -> None:
    value = np.arange(6.0)
    got = successor_values(value, np.array([2, 5]), np.array([-7.0, -8.0]))
    assert_array_equal(got, [1.0, 2.0, -7.0, 4.0, 5.0, -8.0])


def test_wrong_shapes_and_no_rows_are_named() -> None:
    layout = fragments(ragged())
    with pytest.raises(ValueError, match=r"rows is \[3\]; \[17\] were laid out"):
        layout.pack(np.zeros(3))
    with pytest.raises(ValueError, match=r"grid is \[4, 7\]; \[7, 4\] was laid out"):
        layout.unpack(np.zeros((4, 7)))
    with pytest.raises(ValueError, match="at least one row"):
        fragments(np.zeros(0, np.int32))
