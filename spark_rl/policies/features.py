"""Observations of any space as one flat float32 vector, plus the images that a CNN sees as they are.

The learner and the acting side both encode with this code, in numpy, so there is no second version to disagree.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spark_rl.schema.spaces import Leaf, SpaceSpec

Observation = Mapping[str, np.ndarray]

CLIP = 10.0  # standard deviations; the bound of OpenAI baselines' VecNormalize, which the zoo's settings assume
EPS = 1e-8  # added to the variance, features' units squared; same source


class Features:
    """The encoding of one observation space.

    Box leaves are flattened and cast; uint8 ones are scaled to [0, 1]. Discrete and multi-discrete leaves become
    one-hot vectors, multi-binary ones zeros and ones. The parts are concatenated in the order of the leaves.
    With `images`, the uint8 image leaves are left out: they go to convolutions (see `images`).
    """

    def __init__(self, space: SpaceSpec, *, images: bool) -> None:
        self.image_leaves: tuple[Leaf, ...] = tuple(leaf for leaf in space.leaves if images and leaf.is_image)
        self.flat_leaves: tuple[Leaf, ...] = tuple(leaf for leaf in space.leaves if leaf not in self.image_leaves)
        self.size = sum(width(leaf) for leaf in self.flat_leaves)
        # Normalising a one-hot column would blow a rare category up to the clip, so indicators stay as they are.
        self.normalized = np.concatenate(
            [np.zeros(0, bool), *(np.full(width(leaf), leaf.kind == "box") for leaf in self.flat_leaves)]
        )

    def encode(self, observation: Observation) -> np.ndarray:
        """{leaf: [N, *shape]} -> float32 [N, size]; may share memory with the observation."""
        parts = [_encode(leaf, observation[leaf.name]) for leaf in self.flat_leaves]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return np.zeros((len(next(iter(observation.values()))), 0), np.float32)
        return np.concatenate(parts, axis=1)

    def images(self, observation: Observation) -> list[np.ndarray]:
        """The image leaves, uint8 [N, *shape] each, untouched."""
        return [observation[leaf.name] for leaf in self.image_leaves]


def width(leaf: Leaf) -> int:
    """Features that a flat leaf becomes."""
    return sum(leaf.n) if leaf.kind in ("discrete", "multi_discrete") else leaf.size


class Normalizer:
    """Normalisation with frozen statistics, as it travels with the weights: clip((x - mean) / sqrt(var + eps))."""

    def __init__(self, mean: np.ndarray, var: np.ndarray) -> None:
        self._mean = mean.astype(np.float32)
        self._scale = (1.0 / np.sqrt(var + EPS)).astype(np.float32)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float32 [N, F] -> float32 [N, F], a new array."""
        result = features - self._mean
        result *= self._scale
        return np.clip(result, -CLIP, CLIP, out=result)


def _encode(leaf: Leaf, values: np.ndarray) -> np.ndarray:
    if leaf.kind in ("discrete", "multi_discrete"):
        # Offsets of the components within the leaf's features, less the space's own offsets.
        first = np.cumsum((0, *leaf.n[:-1])) - np.asarray(leaf.start or (0,) * len(leaf.n))
        columns = values.reshape(len(values), -1) + first
        result = np.zeros((len(values), sum(leaf.n)), np.float32)
        result[np.arange(len(values))[:, None], columns] = 1.0
        return result
    flat = values.reshape(len(values), -1)
    if leaf.dtype == "uint8":  # cast and scaled in one pass: a picture is large
        scaled: np.ndarray = np.multiply(flat, np.float32(1.0 / 255.0), dtype=np.float32, casting="unsafe")
        return scaled
    return flat.astype(np.float32, copy=False)
