"""A cursor is plain arrays: it survives its bytes, and equal ones have equal bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.envs.group import Carried
from spark_rl.rollout.cursor import Cursor

DTYPES = ["float32", "float64", "int64", "uint8", "bool", "int8", "uint64", "float16"]
arrays = st.builds(
    lambda dtype, shape, seed: np.frombuffer(
        np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype
    ).reshape(shape)
    if dtype != "bool"
    else np.random.default_rng(seed).random(shape) < 0.5,
    st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3).map(tuple), st.integers(0, 99),
)  # fmt: skip
named = st.dictionaries(st.sampled_from(["", "a", "a.b", "pose._0", "t", "tree", "observation/x"]), arrays, max_size=4)
trees = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), lambda inner: st.lists(inner, max_size=3)
)


def cursor_of(
    num: int, observation: dict[str, np.ndarray], kept: dict[str, np.ndarray], tree: Any, state: Any
) -> Cursor:
    rng = np.random.default_rng(num)
    carried = Carried(observation=observation, pending=rng.random(num) < 0.5, episode=rng.integers(0, 2**40, num),
                      tree=tree, arrays=kept)  # fmt: skip
    return Cursor(carried=carried, t=rng.integers(0, 99, num).astype(np.int32), episode_return=rng.normal(size=num),
                  first_iteration=rng.integers(0, 9, num).astype(np.int32), policy_version_min=rng.integers(0, 9, num),
                  state=state)  # fmt: skip


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert (array.dtype, array.shape) == (other[name].dtype, other[name].shape)
        assert array.tobytes() == other[name].tobytes()


@settings(max_examples=50, deadline=None)
@given(num=st.integers(1, 4), observation=named, kept=named, tree=trees, recurrent=st.booleans())
def test_a_cursor_survives_its_bytes(
    num: int, observation: dict[str, np.ndarray], kept: dict[str, np.ndarray], tree: Any, recurrent: bool
) -> None:
    state = np.ones((num, 3), np.float32) if recurrent else None
    cursor = cursor_of(num, observation, kept, tree, state)
    content = cursor.encode()
    again = Cursor.decode(content)
    same(again.carried.observation, observation)
    same(again.carried.arrays, kept)
    assert again.carried.tree == tree
    assert (again.state is None) == (state is None)
    for name in ("t", "episode_return", "first_iteration", "policy_version_min"):
        same({name: getattr(again, name)}, {name: getattr(cursor, name)})
    assert again.encode() == content
    again.t[:] = 0  # the next fragment counts on in these arrays


def test_the_order_in_which_arrays_were_put_in_does_not_matter() -> None:
    kept = {"b": np.zeros(2), "a": np.ones(3, np.float32), "c": np.zeros((), np.int8)}
    turned = dict(reversed(kept.items()))
    assert cursor_of(2, {}, kept, None, None).encode() == cursor_of(2, {}, turned, None, None).encode()


def test_a_difference_anywhere_changes_the_bytes() -> None:
    plain = cursor_of(2, {"": np.zeros(2)}, {}, ["x"], None).encode()
    for other in (cursor_of(2, {"": np.ones(2)}, {}, ["x"], None), cursor_of(2, {"": np.zeros(2)}, {}, ["y"], None),
                  cursor_of(2, {"": np.zeros(2)}, {"a": np.zeros(1)}, ["x"], None)):  # fmt: skip
        assert other.encode() != plain


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_number_and_an_array_of_one_stay_apart(shape: tuple[int, ...]) -> None:
    content = cursor_of(1, {}, {"x": np.full(shape, 2.5)}, None, None).encode()
    assert Cursor.decode(content).carried.arrays["x"].shape == shape
