"""Weights as bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spark_rl.errors import RunError
from spark_rl.policies import weights

TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "a": np.asarray(3, np.int64),
    "c": np.asarray([0.1, np.inf]),
}


def test_round_trip_keeps_names_types_and_bits() -> None:
    got = weights.decode(weights.encode(TENSORS))
    assert sorted(got) == ["a", "b", "c"]
    for name, tensor in TENSORS.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        assert_array_equal(got[name], tensor)


def test_equal_tensors_give_equal_bytes_in_any_order() -> None:
    data = weights.encode(TENSORS)
    assert weights.encode(dict(reversed(TENSORS.items()))) == data
    assert weights.sha256(data) == hashlib.sha256(data).hexdigest()
    assert weights.encode({**TENSORS, "c": np.asarray([0.1, 1.0])}) != data


@pytest.mark.parametrize("cut", [0, 4, -1])
def test_damaged_bytes_are_a_run_error(cut: int) -> None:
    with pytest.raises(RunError, match="a safetensors file"):
        weights.decode(weights.encode(TENSORS)[:cut])
