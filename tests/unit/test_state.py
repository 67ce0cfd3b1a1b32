"""State of environments as plain data: exact, canonical, or refused."""

from __future__ import annotations

import enum
import functools
import json
import random
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from spark_rl.envs.state import NotCapturable, capture, restore


class Phase(enum.Enum):
    CALM = 1
    STORM = 2


@dataclass(slots=True)
class Slotted:
    value: float = 0.0


@dataclass
class Part:
    position: np.ndarray = field(default_factory=lambda: np.zeros(2))
    name: str = ""


class Env:
    """Not a gymnasium environment, but what such environments are made of."""

    def __init__(self) -> None:
        self.space = spaces.Discrete(2)
        self.rng = np.random.default_rng(0)
        self.twin = self.rng  # draws from the same generator
        self.parts = [Part(name="a"), Part(name="b")]
        self.current = self.parts[0]
        self.values: Any = None
        self.callback = len


def changed() -> Env:
    env = Env()
    env.rng.random(5)
    env.parts[1].position += 3
    env.current = env.parts[1]
    env.values = {
        "flags": {3, 1, 2}, ("tuple", 1): deque([1, 2], maxlen=3), "nan": float("nan"), "inf": -float("inf"),
        "big": 2**100, "bytes": b"\x00\xff", "f": np.float32(0.1), "zero": np.array(1.5),
        "map": np.array([[b"SF", b"G"]]),
        "phase": Phase.STORM, "slotted": None, "text": "x", "bool": np.bool_(True), "frozen": frozenset({"a", "b"}),
    }  # fmt: skip
    return env


def stored(env: Any) -> tuple[Any, dict[str, np.ndarray]]:
    tree, arrays = capture(env)
    return json.loads(json.dumps(tree)), arrays


def test_a_restored_copy_is_equal_part_by_part() -> None:
    original, copy = changed(), Env()
    copy.extra = "of the copy"  # type: ignore[attr-defined]
    restore(copy, *stored(original))
    assert not hasattr(copy, "extra")
    for key, value in original.values.items():
        got = copy.values[key]
        assert type(got) is type(value), key
        np.testing.assert_equal(got, value)
    assert copy.values["tuple", 1].maxlen == 3
    assert copy.values["zero"].shape == ()
    assert copy.callback is len
    np.testing.assert_array_equal(copy.parts[1].position, original.parts[1].position)
    assert original.rng.random(3).tolist() == copy.rng.random(3).tolist()


def test_two_names_for_one_object_stay_two_names_for_one_object() -> None:
    original, copy = changed(), Env()
    restore(copy, *stored(original))
    assert copy.current is copy.parts[1]
    assert copy.twin is copy.rng
    copy.rng.random()
    original.rng.random()
    assert copy.twin.random() == original.twin.random()


def test_the_copy_shares_nothing_with_the_original_or_with_the_capture() -> None:
    original, copy = changed(), Env()
    tree, arrays = stored(original)
    restore(copy, tree, arrays)
    copy.parts[1].position += 100
    assert original.parts[1].position.tolist() == [3, 3]
    again = Env()
    restore(again, tree, arrays)
    assert again.parts[1].position.tolist() == [3, 3]


def test_equal_states_give_equal_captures_whatever_came_first() -> None:
    one, other = Env(), Env()
    one.a, one.b = {"x", "y"}, 1  # type: ignore[attr-defined]
    other.b, other.a = 1, {"y", "x"}  # type: ignore[attr-defined]
    assert json.dumps(capture(one)[0]) == json.dumps(capture(other)[0])


def test_slots_are_state_too() -> None:
    one, other = Slotted(2.5), Slotted()
    restore(other, *stored(one))
    assert other.value == 2.5


class Kept(list[int]):
    """A list with something on it."""


@pytest.mark.parametrize(
    "value",
    [
        random.Random(3),
        np.random.RandomState(3),
        iter([1, 2]),
        (i for i in range(3)),
        functools.partial(print, 1),
        defaultdict(int),
        Kept([1]),
        np.array([object()]),
        np.ma.masked_array([1.0], [True]),
        ValueError("x"),
        {object(): 1},
        [1, {"deep": memoryview(b"x")}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_hides_its_state_is_refused_by_name(value: Any) -> None:
    env = Env()
    env.hidden = value  # type: ignore[attr-defined]
    with pytest.raises(NotCapturable, match=r"Env\.hidden.*is a .*out of reach"):
        capture(env)


def test_a_copy_that_is_built_differently_is_refused() -> None:
    original, copy = changed(), Env()
    copy.callback = max
    with pytest.raises(ValueError, match=r"builtins:max where the original has builtins:len"):
        restore(copy, *stored(original))
    original, copy = changed(), Env()
    original.parts += [Part(), Part()]
    with pytest.raises(ValueError, match=r"NoneType where the original has .*Part"):
        restore(copy, *stored(original))


@pytest.mark.parametrize(
    "tree",
    [
        {"object": {"__class__": 1}, "of": "test_state:Env"},
        {"object": {"values": {"generator": {}, "name": "Generator"}}, "of": "test_state:Env"},
        {"object": {"values": {"enum": "path", "of": "os:path"}}, "of": "test_state:Env"},
        {"object": {"values": {"eval": "1"}}, "of": "test_state:Env"},
    ],
)
def test_a_forged_state_cannot_reach_further_than_attributes(tree: Any) -> None:
    with pytest.raises(ValueError, match="captured state names|unknown kind"):
        restore(Env(), tree, {})


def test_pickle_would_have_given_a_fresh_environment() -> None:
    """The trap that this module is there for: EzPickle keeps the constructor's arguments, nothing else."""
    pytest.importorskip("mujoco")
    import pickle

    env, copy = gymnasium.make("HalfCheetah-v5"), gymnasium.make("HalfCheetah-v5")
    env.reset(seed=1)
    copy.reset(seed=2)
    for _ in range(5):
        env.step(env.action_space.low)
    restore(copy, *stored(env))
    pickled = pickle.loads(pickle.dumps(env.unwrapped))
    position = env.unwrapped.data.qpos  # type: ignore[attr-defined]
    np.testing.assert_array_equal(copy.unwrapped.data.qpos, position)  # type: ignore[attr-defined]
    assert not np.array_equal(pickled.data.qpos, position)
