"""numpy <-> Arrow where it is delicate: slices, chunks, views and nothing at all. (Round trips: test_writer.)"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from spark_rl.schema.codec import decode_space, decode_sparse, encode_space, encode_sparse
from spark_rl.schema.spaces import Leaf, SpaceSpec
from spark_rl.schema.tables import space_field, transitions

FLOATS = Leaf("", "box", "float32", (2,))
BYTES = Leaf("", "box", "uint8", (2, 2))
NUMBER = Leaf("", "discrete", "int64", (), n=(9,), start=(0,))
SPACES = {
    "floats": SpaceSpec((FLOATS,)),
    "bytes": SpaceSpec((BYTES,)),
    "number": SpaceSpec((NUMBER,)),
    "dict": SpaceSpec((Leaf("a.x", "box", "float32", (2,)), Leaf("a.y", "box", "uint8", (3,)),
                       Leaf("b", "discrete", "int64", (), n=(9,), start=(0,))), "dict"),
}  # fmt: skip


def values_of(space: SpaceSpec, num: int) -> dict[str, np.ndarray]:
    return {leaf.name: np.arange(num * leaf.size).reshape(num, *leaf.shape).astype(leaf.dtype) for leaf in space.leaves}


@pytest.mark.parametrize("name", SPACES)
def test_slices_and_chunks_are_read_where_they_begin(name: str) -> None:
    space = SPACES[name]
    values = values_of(space, 10)
    whole = encode_space(space, values)
    column = pa.chunked_array([whole.slice(1, 3), whole.slice(4, 0), whole.slice(4, 5)])
    for leaf in space.leaves:
        np.testing.assert_array_equal(decode_space(space, column)[leaf.name], values[leaf.name][1:9])


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("rows", [[], [0], [9], [2, 3, 7], list(range(10))])
def test_sparse_columns_are_null_elsewhere(name: str, rows: list[int]) -> None:
    space = SPACES[name]
    values = values_of(space, len(rows))
    column = encode_sparse(space, values, np.array(rows, np.int64), 10)
    column.validate(full=True)
    assert column.null_count == 10 - len(rows)
    assert [i for i, value in enumerate(column.to_pylist()) if value is not None] == rows
    pa.table([column], schema=pa.schema([space_field("final_observation", space, nullable=True)])).validate(full=True)
    got_rows, got = decode_sparse(space, pa.chunked_array([column.slice(0, 4), column.slice(4)]))
    assert got_rows.tolist() == rows
    for leaf in space.leaves:
        np.testing.assert_array_equal(got[leaf.name], values[leaf.name])


@pytest.mark.parametrize("name", SPACES)
def test_no_rows_at_all_keep_their_shape(name: str) -> None:
    space = SPACES[name]
    column = encode_space(space, values_of(space, 0))
    for chunks in ([column], []):
        decoded = decode_space(space, pa.chunked_array(chunks, column.type))
        for leaf in space.leaves:
            assert (decoded[leaf.name].shape, decoded[leaf.name].dtype) == ((0, *leaf.shape), leaf.dtype)


def test_floats_are_views_in_both_directions() -> None:
    values = values_of(SPACES["floats"], 5)
    column = encode_space(SPACES["floats"], values)
    assert np.shares_memory(column.values.to_numpy(), values[""])
    assert np.shares_memory(decode_space(SPACES["floats"], pa.chunked_array([column]))[""], values[""])


def test_nulls_of_a_sparse_list_take_no_space() -> None:
    wide = SpaceSpec((Leaf("", "box", "float32", (1000,)),))
    column = encode_sparse(wide, values_of(wide, 1), np.array([500]), 1000)
    assert column.nbytes < 20_000


def test_structs_nest_as_the_space_does() -> None:
    kind = space_field("observation", SPACES["dict"]).type
    assert [kind.field(i).name for i in range(kind.num_fields)] == ["a", "b"]
    assert [kind.field("a").type.field(i).name for i in range(2)] == ["x", "y"]


def test_raw_actions_are_there_for_boxes_only() -> None:
    assert "raw_action" in transitions(SPACES["number"], SPACES["floats"]).names
    assert "raw_action" not in transitions(SPACES["number"], SPACES["number"]).names
    assert transitions(SPACES["number"], SPACES["number"], state_size=4).field("state").type.list_size == 4
