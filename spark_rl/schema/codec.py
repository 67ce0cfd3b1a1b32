"""numpy <-> Arrow for the columns of a space, without a Python object per row.

Arrays are views wherever Arrow's memory layout allows it, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from spark_rl.errors import UserError
from spark_rl.schema.spaces import Leaf, SpaceSpec
from spark_rl.schema.tables import fold, leaf_type

Leaves = dict[str, np.ndarray]
Named = tuple[pa.Field, pa.Array]


def encode_space(space: SpaceSpec, values: Leaves) -> pa.Array:
    """[N] column from arrays [N, *shape], one per leaf."""
    if space.structure == "leaf":
        return _dense(space.only, values[space.only.name])
    num_rows = len(next(iter(values.values())))
    everywhere = np.ones(num_rows, bool)
    return _struct(space, {leaf.name: _nested(leaf, values[leaf.name], everywhere) for leaf in space.leaves}, None)


def encode_sparse(space: SpaceSpec, values: Leaves, rows: np.ndarray, num_rows: int) -> pa.Array:
    """[num_rows] column that is NULL but in `rows` (ascending), which take the M values of the arrays [M, *shape]."""
    present = np.zeros(num_rows, bool)
    present[rows] = True
    if space.structure != "leaf":
        columns = {leaf.name: _nested(leaf, values[leaf.name], present) for leaf in space.leaves}
        return _struct(space, columns, pa.array(~present))
    column = _nested(space.only, values[space.only.name], present)
    is_list = pa.types.is_list(column.type)
    validity = pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.Array.from_buffers(
        column.type,
        num_rows,
        [validity, *column.buffers()[1:2]] if is_list else [validity, *column.buffers()[1:]],
        null_count=num_rows - len(rows),
        children=[column.values] if is_list else None,
    )


def _dense(leaf: Leaf, values: np.ndarray) -> pa.Array:
    if leaf.dtype == "uint8":
        return _nested(leaf, values, np.ones(len(values), bool))
    flat = _flat(leaf, values)
    return flat if leaf.shape == () else pa.FixedSizeListArray.from_arrays(flat, type=leaf_type(leaf))


def _nested(leaf: Leaf, values: np.ndarray, present: np.ndarray) -> pa.Array:
    """A column of len(present) rows; absent rows take no space where the type has a length of its own."""
    if leaf.shape == () and leaf.dtype != "uint8":
        return _flat(leaf, _spread(leaf, values, present))
    length, limit = np.count_nonzero(present) * leaf.size, np.iinfo(np.int32).max
    if length > limit:  # Arrow's offsets would wrap
        raise UserError(
            where="[rollout] envs_per_group x steps_per_env", got=f"{length:,} values in one column of one file",
            wanted=f"at most {limit:,}", todo="use more groups with fewer environments, or fewer steps",
        )  # fmt: skip
    offsets = np.zeros(len(present) + 1, np.int32)
    np.cumsum(present * leaf.size, out=offsets[1:])
    flat = _flat(leaf, values)
    if leaf.dtype == "uint8":
        buffers = [None, pa.py_buffer(offsets), flat.buffers()[1]]
        return pa.Array.from_buffers(pa.binary(), len(present), buffers)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=leaf_type(leaf, fixed=False))


def _flat(leaf: Leaf, values: np.ndarray) -> pa.Array:
    return pa.array(np.ascontiguousarray(values, dtype=leaf.dtype).reshape(-1))


def _spread(leaf: Leaf, values: np.ndarray, present: np.ndarray) -> np.ndarray:
    full = np.zeros((len(present), *leaf.shape), leaf.dtype)
    full[present] = values
    return full


def _struct(space: SpaceSpec, columns: dict[str, pa.Array], absent: pa.Array | None) -> pa.Array:
    def build(leaf: Leaf) -> Named:
        array = columns[leaf.name]
        return pa.field(leaf.name.rpartition(".")[2], array.type, nullable=False), array

    def join(name: str, inside: Sequence[Named]) -> Named:
        array = pa.StructArray.from_arrays([array for _, array in inside], fields=[field for field, _ in inside])
        return pa.field(name, array.type, nullable=False), array

    inside = fold(space.leaves, build, join)
    fields = [field for field, _ in inside]
    return pa.StructArray.from_arrays([array for _, array in inside], fields=fields, mask=absent)


def decode_space(space: SpaceSpec, column: pa.ChunkedArray) -> Leaves:
    """Arrays [N, *shape], one per leaf, from a column without NULLs. Inverse of `encode_space`."""
    return {leaf.name: _decode_leaf(leaf, column.chunks, space.structure != "leaf") for leaf in space.leaves}


def decode_sparse(space: SpaceSpec, column: pa.ChunkedArray) -> tuple[np.ndarray, Leaves]:
    """Rows (ascending, [M]) that are not NULL and their values, arrays [M, *shape]. Inverse of `encode_sparse`."""
    rows = np.flatnonzero(column.is_valid().to_numpy())
    return rows, decode_space(space, column.drop_null())


def _decode_leaf(leaf: Leaf, chunks: Sequence[pa.Array], nested: bool) -> np.ndarray:
    arrays = []
    for chunk in chunks:
        array = chunk
        for name in leaf.name.split(".") if nested else ():
            array = array.field(name)
        arrays.append(_decode_array(leaf, array))
    if not arrays:
        return np.zeros((0, *leaf.shape), leaf.dtype)
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _decode_array(leaf: Leaf, array: pa.Array) -> np.ndarray:
    if leaf.dtype == "uint8":
        _, offsets, data = array.buffers()
        first = np.frombuffer(offsets, np.int32)[array.offset] if offsets is not None and len(array) else 0
        flat = np.frombuffer(data, np.uint8)[first : first + len(array) * leaf.size] if data else np.zeros(0, np.uint8)
    else:
        flat = (array if leaf.shape == () else array.flatten()).to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), *leaf.shape)
