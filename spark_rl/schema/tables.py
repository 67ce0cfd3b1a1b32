"""Arrow schemas of the stored tables, derived from the spaces. Spark and pyarrow read the same types back.

Types were chosen by what Spark 4 reads: a fixed-size list comes back as ARRAY<FLOAT>, so SQL says `observation[0]`;
uint8 boxes are BINARY, because Parquet would spend four bytes a pixel on a list; float16 and uint64 are never written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa

from spark_rl.schema.spaces import Leaf, SpaceSpec

SCHEMA_VERSION = 1

Node = TypeVar("Node")

EPISODES = pa.schema(
    [
        pa.field("episode_id", pa.int64(), nullable=False),
        pa.field("env_index", pa.int32(), nullable=False),
        pa.field("seed", pa.int64()),  # NULL where a vector environment draws its own resets
        pa.field("length", pa.int32(), nullable=False),
        pa.field("episode_return", pa.float64(), nullable=False),
        pa.field("terminated", pa.bool_(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("end_reason", pa.string(), nullable=False),  # terminated | truncated | cut
        pa.field("first_iteration", pa.int32(), nullable=False),
        pa.field("policy_version_min", pa.int64(), nullable=False),
        pa.field("policy_version_max", pa.int64(), nullable=False),
    ]
)


def leaf_type(leaf: Leaf, *, fixed: bool = True) -> pa.DataType:
    """Arrow type of one leaf; its list has a `fixed` size unless NULLs are to take no space."""
    if leaf.dtype == "uint8":
        return pa.binary()
    value = {"float32": pa.float32(), "int64": pa.int64(), "int8": pa.int8()}[leaf.dtype]
    if leaf.shape == ():
        return value
    return pa.list_(pa.field("element", value, nullable=False), leaf.size if fixed else -1)


def leaf_metadata(leaf: Leaf) -> dict[str, str]:
    """What a reader of the file alone needs to give the values their shape back."""
    return {"spark_rl.shape": json.dumps(leaf.shape), "spark_rl.dtype": leaf.dtype, "spark_rl.kind": leaf.kind}


def space_field(name: str, space: SpaceSpec, *, nullable: bool = False) -> pa.Field:
    """The column of a space: its leaf's type, or a STRUCT that nests as the space does."""
    if space.structure == "leaf":
        leaf = space.only
        # A fixed-size list would write values for every NULL, and all but a few final observations are NULL.
        return pa.field(name, leaf_type(leaf, fixed=not nullable), nullable=nullable, metadata=leaf_metadata(leaf))

    def build(leaf: Leaf) -> pa.Field:
        # Arrow cannot read back a fixed-size list inside a STRUCT that is NULL.
        return pa.field(
            leaf.name.rpartition(".")[2], leaf_type(leaf, fixed=False), nullable=False, metadata=leaf_metadata(leaf)
        )

    def join(name: str, fields: Sequence[pa.Field]) -> pa.Field:
        return pa.field(name, pa.struct(fields), nullable=False)

    return pa.field(name, pa.struct(fold(space.leaves, build, join)), nullable=nullable)


def fold(
    leaves: Sequence[Leaf], build: Callable[[Leaf], Node], join: Callable[[str, Sequence[Node]], Node], depth: int = 0
) -> list[Node]:
    """Rebuild the nesting that the leaves' dotted names describe, bottom up, keeping their order."""
    branches: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        branches.setdefault(leaf.name.split(".")[depth], []).append(leaf)
    return [
        build(inside[0])
        if len(inside[0].name.split(".")) == depth + 1
        else join(name, fold(inside, build, join, depth + 1))
        for name, inside in branches.items()
    ]


def transitions(observation: SpaceSpec, action: SpaceSpec, *, state_size: int = 0, masked: bool = False) -> pa.Schema:
    """One row per env step: what was seen, what was done, and what the same `env.step` call returned.

    `final_observation` is the true successor and stands only in the last row of an episode or of the environment's
    share of the file; everywhere else the successor is the next row. `raw_action` (box actions only) is the sample
    before clipping, to which `action_log_prob` belongs. `state` (recurrent policies only) is the policy's state before
    the step, `state_size` numbers. `action_mask` (with `masked`, policies that obey one only) says which choices were
    allowed, component after component of a multi-discrete action; an off-policy estimate has to know.
    """
    fields = [
        pa.field("episode_id", pa.int64(), nullable=False),
        pa.field("env_index", pa.int32(), nullable=False),
        pa.field("t", pa.int32(), nullable=False),
        space_field("observation", observation),
        space_field("action", action),
    ]
    if action.only.kind == "box":
        fields.append(space_field("raw_action", action))
    fields += [
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("terminated", pa.bool_(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        space_field("final_observation", observation, nullable=True),
        pa.field("action_log_prob", pa.float64()),  # NULL: unknown, a script that does not say
        pa.field("policy_version", pa.int64(), nullable=False),
    ]
    if masked:
        allowed = pa.list_(pa.field("element", pa.bool_(), nullable=False), sum(action.only.n))
        fields.append(pa.field("action_mask", allowed, nullable=False))
    if state_size:
        fields.append(pa.field("state", pa.list_(pa.field("element", pa.float32(), nullable=False), state_size)))
    return pa.schema(fields, metadata={"spark_rl.schema_version": str(SCHEMA_VERSION)})
