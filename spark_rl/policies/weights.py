"""Weights as bytes: safetensors, equal to the bit for equal tensors. Reading them can run no code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import load, save

from spark_rl.errors import RunError


def encode(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Name -> array as a safetensors file; the order of the mapping does not change a byte."""
    return bytes(save({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}))


def decode(data: bytes) -> dict[str, np.ndarray]:
    """Inverse of `encode`; RunError when the bytes are no safetensors file."""
    try:
        return dict(load(data))
    except Exception as error:  # safetensors raises its own SafetensorError, or ValueError, by version
        raise RunError(
            "weights", f"{len(data):,} bytes that do not parse ({error})", "a safetensors file", "the file is damaged"
        ) from error


def sha256(data: bytes) -> str:
    """The name of these weights in commit records and lineage, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
