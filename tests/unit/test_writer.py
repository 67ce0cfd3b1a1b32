"""Rows -> Parquet -> rows, to the bit: any space, any ragged pattern of ends, with nothing but pyarrow in between."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.data.reader import to_batch
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import UserError
from spark_rl.files import open_root
from spark_rl.policies.spec import PolicySpec
from spark_rl.rollout import writer
from spark_rl.rollout.episodes import Episodes, Places
from spark_rl.rollout.fragment import Rows
from spark_rl.rollout.spec import GroupTask, RolloutSpec
from spark_rl.schema import codec, tables
from spark_rl.schema.parquet import encode
from spark_rl.schema.spaces import Leaf, SpaceSpec

TASK = GroupTask(iteration=3, group=2, policy_version=2)
PLAIN = SpaceSpec((Leaf("", "discrete", "int64", (), n=(3,), start=(0,)),))
VECTOR = SpaceSpec((Leaf("", "box", "float32", (4,)),))


def spec_of(observation: SpaceSpec, action: SpaceSpec = PLAIN) -> RolloutSpec:
    return RolloutSpec(
        run_id="r", run_uri="/nowhere", seed=0, env=EnvSpec(id="x"), native=False, carry="cut", num_groups=3,
        policy=PolicySpec(observation=observation, action=action), envs_per_group=4, steps_per_env=8, deadline_s=1.0,
    )  # fmt: skip


def values_of(leaf: Leaf, num: int, rng: np.random.Generator) -> np.ndarray:
    """Any bits that the leaf's type can hold, NaN with payloads and negative zeros among them."""
    size = num * leaf.size * np.dtype(leaf.dtype).itemsize
    return np.frombuffer(rng.bytes(size), leaf.dtype).reshape(num, *leaf.shape)


def random_rows(spec: RolloutSpec, counts: list[int], rng: np.random.Generator) -> tuple[Rows, Places]:
    total = sum(counts)
    terminated = rng.random(total) < 0.3
    truncated = rng.random(total) < 0.2
    last = terminated | truncated
    last[np.cumsum([count for count in counts if count], dtype=np.int64) - 1] = True
    last_row = np.flatnonzero(last)
    (action,) = spec.policy.action.leaves
    rows = Rows(
        observation={leaf.name: values_of(leaf, total, rng) for leaf in spec.policy.observation.leaves},
        action=values_of(action, total, rng),
        raw_action=values_of(action, total, rng) if action.kind == "box" else None,
        reward=np.frombuffer(rng.bytes(8 * total), np.float64),
        terminated=terminated, truncated=truncated, log_prob=rng.normal(size=total).astype(np.float32), state=None,
        counts=np.array(counts), last_row=last_row,
        final_observation={leaf.name: values_of(leaf, len(last_row), rng) for leaf in spec.policy.observation.leaves},
    )  # fmt: skip
    places = Places(env=np.repeat(np.arange(len(counts)), counts), ordinal=rng.integers(0, 2**31, total),
                    t=rng.integers(0, 2**31 - 1, total).astype(np.int32))  # fmt: skip
    return rows, places


def same_bits(got: np.ndarray, wanted: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(wanted).tobytes()


shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
plain_leaves = st.one_of(
    st.builds(
        lambda dtype, shape: Leaf("", "box", dtype, shape), st.sampled_from(["float32", "uint8", "int64"]), shapes
    ),
    st.just(Leaf("", "discrete", "int64", (), n=(4,), start=(0,))),
    st.just(Leaf("", "multi_discrete", "int64", (2,), n=(4, 5), start=(0, 0))),
    shapes.map(lambda shape: Leaf("", "multi_binary", "int8", shape)),
)


def renamed(leaf: Leaf, name: str) -> Leaf:
    return Leaf(name, leaf.kind, leaf.dtype, leaf.shape, leaf.n, leaf.start, leaf.low, leaf.high)


# Nesting of any kind: names are paths, and no name is the beginning of another's path.
NAMES = [["a", "b", "c"], ["a.x", "a.y", "b"], ["_0", "_1.p._0", "_1.p._1", "_2"], ["deep.er.est"], ["list", "element"]]
nested = st.sampled_from(NAMES).flatmap(
    lambda names: st.tuples(*(plain_leaves for _ in names)).map(
        lambda leaves: SpaceSpec(tuple(map(renamed, leaves, names)), "dict")
    )
)
observations = st.one_of(plain_leaves.map(lambda leaf: SpaceSpec((leaf,))), nested)
actions = st.sampled_from(
    [PLAIN, SpaceSpec((Leaf("", "multi_discrete", "int64", (2,), n=(4, 5), start=(0, 0)),)),
     SpaceSpec((Leaf("", "box", "float32", (3,)),)), SpaceSpec((Leaf("", "box", "float32", ()),))]
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    observation=observations, action=actions, counts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    seed=st.integers(0, 2**32), compression=st.sampled_from(["zstd", "none", "snappy"]),
)  # fmt: skip
def test_any_space_and_any_ends_come_back_to_the_bit(
    observation: SpaceSpec, action: SpaceSpec, counts: list[int], seed: int, compression: str
) -> None:
    rng = np.random.default_rng(seed)
    spec = spec_of(observation, action)
    rows, places = random_rows(spec, counts, rng)
    content = encode(writer.transitions_table(spec, TASK, rows, places), compression)
    stored = pq.ParquetFile(pa.BufferReader(content)).read()
    batch = to_batch(stored, observation, action)
    for leaf in observation.leaves:
        same_bits(batch.observation[leaf.name], rows.observation[leaf.name])
        same_bits(batch.final_observation[leaf.name], rows.final_observation[leaf.name])
    for name in ("reward", "terminated", "truncated", "action", "raw_action"):
        got, wanted = getattr(batch, name), getattr(rows, name)
        assert (got is None) == (wanted is None)
        if wanted is not None:
            same_bits(got, wanted)
    same_bits(batch.action_log_prob, rows.log_prob)
    same_bits(batch.t, places.t)
    assert batch.last_row.tolist() == rows.last_row.tolist()
    assert batch.env_index.tolist() == (places.env + 8).tolist()  # group 2 of 4 environments each
    assert batch.episode_id.tolist() == [
        int(e + 8) * 2**32 + int(o) for e, o in zip(places.env, places.ordinal, strict=True)
    ]
    assert batch.policy_version.tolist() == [2] * batch.num_rows
    plain(stored, rows, observation)


def plain(stored: pa.Table, rows: Rows, observation: SpaceSpec) -> None:
    """As Python objects, the way somebody without our code sees them."""

    def at(row: Any, leaf: Leaf) -> Any:
        for name in leaf.name.split(".") if observation.structure != "leaf" else []:
            row = row[name]
        return row

    finals = dict(zip(rows.last_row.tolist(), range(len(rows.last_row)), strict=True))
    for i, row in enumerate(stored.to_pylist()):
        assert (row["final_observation"] is not None) == (i in finals)
        for leaf in observation.leaves:
            wanted = np.array(rows.observation[leaf.name][i])
            got = at(row["observation"], leaf)
            if leaf.dtype == "uint8":
                assert got == wanted.tobytes()
            else:
                np.testing.assert_array_equal(np.array(got, leaf.dtype), wanted.reshape(-1) if leaf.shape else wanted)


def test_equal_rows_give_equal_bytes_and_others_do_not() -> None:
    spec = spec_of(VECTOR)

    def content(seed: int) -> bytes:
        rows, places = random_rows(spec, [3, 0, 4], np.random.default_rng(seed))
        return bytes(encode(writer.transitions_table(spec, TASK, rows, places), "zstd"))

    assert content(0) == content(0)
    assert content(0) != content(1)


def test_floats_are_split_into_byte_streams_and_have_no_dictionary() -> None:
    box = SpaceSpec((Leaf("", "box", "float32", (2,)),))
    spec = spec_of(VECTOR, box)
    rows, places = random_rows(spec, [300, 200], np.random.default_rng(0))
    group = pq.ParquetFile(
        pa.BufferReader(encode(writer.transitions_table(spec, TASK, rows, places), "zstd"))
    ).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for name in ("observation", "final_observation", "action", "raw_action"):
        column = columns[f"{name}.list.element"]
        assert "BYTE_STREAM_SPLIT" in column.encodings
        assert not column.has_dictionary_page
        assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in columns["action_log_prob"].encodings
    assert "DELTA_BINARY_PACKED" in columns["t"].encodings
    assert columns["env_index"].has_dictionary_page


def test_a_reader_of_the_file_alone_finds_shapes_and_version() -> None:
    image = SpaceSpec((Leaf("", "box", "uint8", (2, 3)),))
    spec = spec_of(image)
    rows, places = random_rows(spec, [2], np.random.default_rng(0))
    schema = pq.ParquetFile(
        pa.BufferReader(encode(writer.transitions_table(spec, TASK, rows, places), "zstd"))
    ).schema_arrow
    assert json.loads(schema.field("observation").metadata[b"spark_rl.shape"]) == [2, 3]
    assert schema.metadata[b"spark_rl.schema_version"] == b"1"
    assert schema.field("observation").type == pa.binary()
    assert not schema.field("reward").nullable
    assert schema.field("final_observation").nullable


def test_every_type_is_one_that_spark_reads() -> None:
    """No float16, no unsigned integers, no time zones: Spark 4 refuses or changes them."""
    fine = {pa.float32(), pa.float64(), pa.int8(), pa.int32(), pa.int64(), pa.bool_(), pa.binary(), pa.string()}
    leaves = [Leaf(name, kind, dtype, shape) for name, kind, dtype in
              [("a", "box", "float32"), ("b", "box", "uint8"), ("c", "box", "int64"), ("d", "multi_binary", "int8")]
              for shape in [(2,)]]  # fmt: skip

    def flat(kind: pa.DataType) -> list[pa.DataType]:
        if pa.types.is_struct(kind):
            return [inner for i in range(kind.num_fields) for inner in flat(kind.field(i).type)]
        return flat(kind.value_type) if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) else [kind]

    schema = tables.transitions(SpaceSpec(tuple(leaves), "dict"), PLAIN, state_size=3)
    assert {kind for field in [*schema, *tables.EPISODES] for kind in flat(field.type)} <= fine


def test_episodes_say_why_they_ended() -> None:
    ends = Episodes(
        env=np.array([0, 1, 1]), ordinal=np.array([5, 0, 2**31]), length=np.array([3, 4, 5]),
        episode_return=np.array([1.0, -2.5, 0.0]),
        terminated=np.array([True, False, False]), truncated=np.array([False, True, False]),
        first_iteration=np.array([1, 3, 2]), policy_version_min=np.array([0, 2, 1]),
    )  # fmt: skip
    table = writer.episodes_table(spec_of(VECTOR), TASK, ends, None)
    stored = pq.ParquetFile(pa.BufferReader(encode(table, "zstd"))).read().to_pylist()
    assert [row["end_reason"] for row in stored] == ["terminated", "truncated", "cut"]
    assert [row["episode_id"] for row in stored] == [8 * 2**32 + 5, 9 * 2**32, 9 * 2**32 + 2**31]
    assert [row["seed"] for row in stored] == [None] * 3
    assert stored[1] == {
        "episode_id": 9 * 2**32, "env_index": 9, "seed": None, "length": 4, "episode_return": -2.5, "terminated": False,
        "truncated": True, "end_reason": "truncated", "first_iteration": 3, "policy_version_min": 2,
        "policy_version_max": 2,
    }  # fmt: skip


def test_a_file_is_reported_as_it_lies_there(tmp_path: Path) -> None:
    report = writer.put(open_root(str(tmp_path)), "transitions", TASK, b"rows", 4)
    content = (tmp_path / "_staging/3/transitions/part-00002.parquet").read_bytes()
    assert (report.name, report.rows, report.size_bytes) == ("part-00002.parquet", 4, len(content))
    assert report.sha256 == hashlib.sha256(content).hexdigest()


def test_a_column_that_arrow_cannot_address_is_refused_in_words() -> None:
    leaf = Leaf("", "box", "uint8", (2**20,))
    with pytest.raises(UserError, match=r"envs_per_group x steps_per_env: got 2,147,483,648 values .*more groups"):
        codec._nested(leaf, np.zeros((0, 2**20), np.uint8), np.ones(2**11, bool))
