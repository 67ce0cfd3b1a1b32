"""What a space looks like once it is data: an ordered tuple of leaves that serialises to JSON.

A plain space has one leaf named "". Dict and Tuple spaces have one leaf per plain space inside them, named by its
path with dots ("camera.front"; the fields of a tuple are "_0", "_1", ...: SQL wants no digit first). Everything after
the environment's door handles observations as ``{leaf name: array}``.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("box", "discrete", "multi_discrete", "multi_binary")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One plain space.

    `dtype` is the type in memory: float32, uint8 or int64 for a box, int64 for (multi-)discrete, int8 for binary.
    `shape` is that of one element, () for a discrete one. `n` counts the choices of each discrete component and
    `start` is the smallest value of each; `low` and `high` bound a box, flattened row-major, or hold a single value
    where all elements share it.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    n: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in one element."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether the leaf holds a uint8 picture, [height, width, channels] or a stack [frames, height, width]."""
        return self.kind == "box" and self.dtype == "uint8" and len(self.shape) in (2, 3)


@dataclass(frozen=True, slots=True)
class SpaceSpec:
    """The leaves of a space in their fixed order, and the nesting that gave rise to their names.

    `structure` is "leaf", "dict" or "tuple": the kind of the outermost space. Inner nesting is in the dotted names.
    """

    leaves: tuple[Leaf, ...]
    structure: str = "leaf"

    @property
    def only(self) -> Leaf:
        """The single leaf of a plain space; ValueError for a nested one."""
        if len(self.leaves) != 1:
            raise ValueError(f"a plain space was wanted, this one has leaves {[leaf.name for leaf in self.leaves]}")
        return self.leaves[0]

    def to_json(self) -> str:
        """Stable text: equal specs give equal bytes."""
        # Infinite bounds are common (CartPole's velocities) and are not JSON; Python's reader takes Infinity back.
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SpaceSpec:
        """Inverse of `to_json`."""
        raw = json.loads(text)
        leaves = tuple(Leaf(**{key: _frozen(value) for key, value in leaf.items()}) for leaf in raw["leaves"])
        return cls(leaves=leaves, structure=raw["structure"])


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
