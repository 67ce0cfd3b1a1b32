"""gymnasium spaces as specs, and observations as arrays by leaf."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toys
from gymnasium import spaces

from spark_rl.envs.spaces import action_spec, allocate, fitting, getter, observation_spec
from spark_rl.errors import UserError
from spark_rl.schema.spaces import Leaf, SpaceSpec

ANY = toys.AnySpace.SPACES


@pytest.mark.parametrize("name", ANY)
def test_a_spec_survives_json_and_is_hashable(name: str) -> None:
    spec = observation_spec(ANY[name], "x")
    assert SpaceSpec.from_json(spec.to_json()) == spec
    assert hash(SpaceSpec.from_json(spec.to_json())) == hash(spec)
    assert SpaceSpec.from_json(spec.to_json()).to_json() == spec.to_json()


def test_leaves_are_named_by_their_path() -> None:
    spec = observation_spec(ANY["dict"], "x")
    assert spec.structure == "dict"
    assert [(leaf.name, leaf.kind, leaf.dtype, leaf.shape) for leaf in spec.leaves] == [
        ("camera.front", "box", "uint8", (2, 2)),
        ("camera.on", "discrete", "int64", ()),
        ("pose._0", "box", "float32", (3,)),
        ("pose._1", "multi_binary", "int8", (4,)),
    ]
    assert [leaf.name for leaf in observation_spec(ANY["tuple"], "x").leaves] == ["_0", "_1.x"]


def test_bounds_and_choices_are_kept() -> None:
    multi = observation_spec(ANY["multi"], "x").only
    assert (multi.n, multi.start, multi.shape) == ((2, 3, 4, 5), (0, 0, 0, 0), (2, 2))
    box = action_spec(toys.AnySpace.ACTIONS["box"], "x").only
    assert (box.low, box.high) == ((-0.5,), (0.5, 2.0))
    assert observation_spec(ANY["discrete"], "x").only.start == (-2,)


@pytest.mark.parametrize("name", ANY)
def test_observations_come_apart_as_the_space_says(name: str) -> None:
    space = ANY[name]
    space.seed(0)
    spec, observation = observation_spec(space, "x"), space.sample()

    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [leaf for inner in value.values() for leaf in leaves(inner)]
        return [leaf for inner in value for leaf in leaves(inner)] if isinstance(value, tuple) else [value]

    row = allocate(spec, 2)
    for leaf in spec.leaves:
        row[leaf.name][1] = fitting(leaf, getter(leaf, spec.structure)(observation), leaf.shape)
    for leaf, wanted in zip(spec.leaves, leaves(observation), strict=True):
        np.testing.assert_array_equal(row[leaf.name][1], np.asarray(wanted).astype(leaf.dtype))
        assert row[leaf.name].dtype == leaf.dtype


class Named(spaces.Dict):
    """A Dict space by another name."""


def test_a_subclass_of_dict_is_a_dict() -> None:
    spec = observation_spec(Named({"x": spaces.Discrete(2)}), "x")
    assert (spec.structure, spec.only.name) == ("dict", "x")


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(4),
        spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))}),
        spaces.Dict({}),
        spaces.Dict({"a": spaces.Box(0, 1, (0,))}),
        spaces.Dict({"a.b": spaces.Discrete(2)}),
        spaces.Dict({"": spaces.Discrete(2)}),
    ],
    ids=str,
)
def test_other_observation_spaces_are_refused(space: Any) -> None:
    with pytest.raises(UserError, match=r"observation space of Toy-v0: got .*; wanted .*; .*wrapper"):
        observation_spec(space, "Toy-v0")


@pytest.mark.parametrize(
    "space", [spaces.MultiBinary(2), spaces.Box(0, 9, (2,), np.int64), spaces.Dict(a=spaces.Discrete(2))]
)
def test_other_action_spaces_are_refused(space: Any) -> None:
    with pytest.raises(UserError, match="action space of Toy-v0: got .*; wanted Discrete, MultiDiscrete or a Box"):
        action_spec(space, "Toy-v0")


FLOATS = Leaf("", "box", "float32", (2,))
BYTES = Leaf("", "box", "uint8", (2,))
CHOICE = Leaf("", "discrete", "int64", (), n=(3,), start=(1,))
CHOICES = Leaf("", "multi_discrete", "int64", (2,), n=(2, 3), start=(0, 5))
BITS = Leaf("", "multi_binary", "int8", (2,))


@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        (FLOATS, np.zeros(())), (FLOATS, np.zeros((1, 2))), (FLOATS, np.zeros(3)),
        (BYTES, np.array([0, 300])), (BYTES, np.array([0.5, 1])), (BYTES, np.array([-1, 1])),
        (CHOICE, 0), (CHOICE, 4), (CHOICE, 1.5), (CHOICE, np.array([1])),
        (CHOICES, np.array([0, 4])), (CHOICES, np.array([2, 5])), (BITS, np.array([0, 2])), (BITS, np.array([257, 0])),
    ],
)  # fmt: skip
def test_what_numpy_would_bend_into_shape_is_refused(leaf: Leaf, value: Any) -> None:
    with pytest.raises(ValueError, match="observation ''"):
        fitting(leaf, value, leaf.shape)


@pytest.mark.parametrize(
    ("leaf", "value"),
    [(FLOATS, [1, 2]), (BYTES, np.array([0, 255])), (CHOICE, 3), (CHOICE, np.int32(1)), (CHOICES, [1, 7]),
     (BITS, [True, False])],
)  # fmt: skip
def test_what_fits_in_another_type_is_taken(leaf: Leaf, value: Any) -> None:
    np.testing.assert_array_equal(fitting(leaf, value, leaf.shape), value)
