"""gymnasium spaces -> SpaceSpec, and observations as environments return them -> arrays by leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from spark_rl.errors import UserError
from spark_rl.schema.spaces import Leaf, SpaceSpec


def observation_spec(space: spaces.Space[Any], env_id: str) -> SpaceSpec:
    """Any nesting of Dict and Tuple over Box, Discrete, MultiDiscrete and MultiBinary; UserError for another space."""
    structure = "dict" if isinstance(space, spaces.Dict) else "tuple" if isinstance(space, spaces.Tuple) else "leaf"
    leaves = tuple(_leaf(name, inner, env_id) for name, inner in _walk("", space, env_id))
    names = [leaf.name.lower() for leaf in leaves]
    if len(set(names)) < len(names):
        raise UserError(f"observation space of {env_id}", f"Dict keys {[leaf.name for leaf in leaves]}",
                        "keys that differ in more than case: SQL does not tell case apart",
                        "rename one in a wrapper")  # fmt: skip
    if not leaves or not all(leaf.size for leaf in leaves):
        raise _unsupported("observation", space, env_id, "a space with at least one number in every part")
    return SpaceSpec(leaves=leaves, structure=structure)


def action_spec(space: spaces.Space[Any], env_id: str) -> SpaceSpec:
    """Discrete, MultiDiscrete or a real-valued Box; UserError for another space."""
    supported = isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) or (
        isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    )
    if not supported:
        raise _unsupported("action", space, env_id, "Discrete, MultiDiscrete or a Box of floats")
    return SpaceSpec(leaves=(_leaf("", space, env_id),))


def _walk(name: str, space: spaces.Space[Any], env_id: str) -> Iterator[tuple[str, spaces.Space[Any]]]:
    for key, inner in _children(space):
        if not isinstance(key, str) or not key or set(key) & set(".`"):
            raise UserError(
                where=f"observation space of {env_id}",
                got=f"the Dict key {key!r}",
                wanted="keys that can name a column: text, not empty, without dots and backticks",
                todo="rename the key in a wrapper",
            )
        yield from _walk(f"{name}.{key}" if name else key, inner, env_id)
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        yield name, space


def _children(space: spaces.Space[Any]) -> list[tuple[str, spaces.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        return list(space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return [(f"_{i}", inner) for i, inner in enumerate(space.spaces)]
    return []


def _leaf(name: str, space: spaces.Space[Any], env_id: str) -> Leaf:
    shape = tuple(int(size) for size in space.shape or ())
    if isinstance(space, spaces.Box):
        dtype = "uint8" if space.dtype == np.uint8 else "int64" if np.issubdtype(space.dtype, np.integer) else "float32"
        return Leaf(name, "box", dtype, shape, low=_bounds(space.low), high=_bounds(space.high))
    if isinstance(space, spaces.Discrete):
        return Leaf(name, "discrete", "int64", (), n=(int(space.n),), start=(int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        n, start = space.nvec.reshape(-1).tolist(), space.start.reshape(-1).tolist()
        return Leaf(name, "multi_discrete", "int64", shape, n=tuple(n), start=tuple(start))
    if isinstance(space, spaces.MultiBinary):
        return Leaf(name, "multi_binary", "int8", shape)
    raise _unsupported("observation", space, env_id, "Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple")


def _bounds(bound: np.ndarray) -> tuple[float, ...]:
    flat = bound.astype(np.float64).reshape(-1)
    return (float(flat[0]),) if flat.size and (flat == flat[0]).all() else tuple(flat.tolist())


def _unsupported(what: str, space: spaces.Space[Any], env_id: str, wanted: str) -> UserError:
    return UserError(
        where=f"{what} space of {env_id}", got=f"{type(space).__name__} {space}", wanted=wanted,
        todo="convert it in a wrapper ([env] wrappers)",
    )  # fmt: skip


def getter(leaf: Leaf, structure: str) -> Callable[[Any], Any]:
    """A function that takes one leaf's value, or its batch of values, out of an observation as gymnasium returns it."""
    if structure == "leaf":
        return lambda observation: observation
    keys = leaf.name.split(".")

    def get(observation: Any) -> Any:
        for key in keys:
            # A tuple's fields are named by position, with an underscore in front, as SQL wants them.
            observation = observation[int(key[1:])] if isinstance(observation, tuple) else observation[key]
        return observation

    return get


def fitting(leaf: Leaf, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The value as an array that a leaf can hold, [*shape]; ValueError where numpy would broadcast, cut or wrap it.

    Values of discrete kinds have to be in their space, since a policy looks them up at once; boxes are checked later.
    """
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"observation {leaf.name!r} has the shape {array.shape}; its space says {shape}")
    if array.dtype != leaf.dtype and leaf.dtype != "float32" and not np.array_equal(array.astype(leaf.dtype), array):
        raise ValueError(f"observation {leaf.name!r} has {array.dtype} values that are no {leaf.dtype}: {array!r}")
    if leaf.kind != "box" and not _in_range(leaf, array):
        space = f"{leaf.kind}, n {list(leaf.n) or 2}, start {list(leaf.start) or 0}"
        raise ValueError(f"observation {leaf.name!r} is {array!r}, outside its space ({space})")
    return array


def _in_range(leaf: Leaf, array: np.ndarray) -> bool:
    if array.shape == ():  # one environment's discrete value: plain numbers are ten times as fast
        return leaf.start[0] <= int(array) < leaf.start[0] + leaf.n[0]
    start, n = leaf.start or (0,), leaf.n or (2,)
    low, size = (np.array(bound).reshape(leaf.shape if len(bound) > 1 else ()) for bound in (start, n))
    return bool(((array >= low) & (array < low + size)).all())


def allocate(space: SpaceSpec, *lead: int) -> dict[str, np.ndarray]:
    """Zeroed arrays [*lead, *leaf shape], one per leaf, in the leaf's type."""
    return {leaf.name: np.zeros((*lead, *leaf.shape), leaf.dtype) for leaf in space.leaves}
