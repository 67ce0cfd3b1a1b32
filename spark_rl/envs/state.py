"""Take an environment's state out as plain data, and put it into a fresh copy.

Pickle is no way to do this: pickling MuJoCo and ALE environments succeeds and gives back a *fresh* environment (they
pickle their constructor's arguments), and nothing pickled may be read from a run directory anyway. So the objects'
attributes are walked. Known kinds are copied, a few foreign objects have a state interface of their own, and anything
else refuses: an environment is never half captured. Whether a capture is exact is proved by stepping (see `carry`).
"""

from __future__ import annotations

import base64
import enum
import json
import sys
import types
from collections import deque
from typing import Any

import gymnasium
import numpy as np

from spark_rl.errors import RunError

# The fresh copy has its own; a restore checks that it is of the same class, or the same function.
_STATIC = (gymnasium.Space, gymnasium.envs.registration.EnvSpec, types.ModuleType, type)
_STATIC_CLASSES = {"MjModel", "MujocoRenderer"}
_STATIC_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_BIT_GENERATORS = {"PCG64", "PCG64DXSM", "Philox", "MT19937", "SFC64"}
# What safetensors holds without a change.
_DTYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_PLAIN = (bool, int, float, str, type(None))


class NotCapturable(RunError):
    """The environment holds an object whose state cannot be read; the message names the attribute and its type."""


def capture(env: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A JSON-able tree and the arrays it refers to; equal states give equal ones. Raises NotCapturable."""
    writer = _Writer()
    return writer.value(env, type(env).__name__), writer.arrays


def restore(env: Any, tree: Any, arrays: dict[str, np.ndarray]) -> None:
    """Put a captured state into an environment of the same construction that has been reset once.

    Raises ValueError where the copy is built differently than the original was.
    """
    _Reader(arrays).value(tree, env)


class _Writer:
    """Mutable values are numbered in the order in which they are met; one that is met again is written as its number,
    so two names for one object stay two names for one object."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.numbers: dict[int, int] = {}
        self.alive: list[Any] = []  # a temporary that died would hand its id to the next one

    def value(self, value: Any, path: str) -> Any:
        if type(value) in _PLAIN:
            return value
        if id(value) in self.numbers:
            return {"same": self.numbers[id(value)]}
        if type(value) is np.str_:
            return str(value)
        if isinstance(value, np.generic) and value.dtype.name in _DTYPES:
            return {"scalar": self.array(value)}
        if type(value) is bytes:
            return {"bytes": base64.b64encode(value).decode()}
        if type(value) is tuple:
            return {"tuple": self.items(value, path)}
        if type(value) is frozenset:
            return {"frozenset": self.unordered(value, path)}
        if isinstance(value, enum.Enum):
            return {"enum": value.name, "of": _identity(value)}
        static = isinstance(value, _STATIC + _STATIC_FUNCTIONS) or type(value).__name__ in _STATIC_CLASSES
        return {"static": _identity(value)} if static else self.mutable(value, path)

    def mutable(self, value: Any, path: str) -> Any:
        self.numbers[id(value)] = len(self.numbers)
        self.alive.append(value)
        if (
            type(value) is np.ndarray
            and value.dtype.isnative
            and (value.dtype.name in _DTYPES or value.dtype.kind in "SU")
        ):
            # Text, such as toy text's maps, travels as its bytes.
            text = value.dtype.kind in "SU"
            array = self.array(np.frombuffer(value.tobytes(), np.uint8) if text else value)
            return {"array": array, "shape": value.shape, "dtype": value.dtype.str} if text else {"array": array}
        if type(value) is list:
            return {"list": self.items(value, path)}
        if type(value) is dict:
            pairs = [[self.key(key, path), self.value(inner, f"{path}[{key!r}]")] for key, inner in value.items()]
            return {"dict": pairs}
        if type(value) is deque:
            return {"deque": self.items(value, path), "maxlen": value.maxlen}
        if type(value) is set:
            return {"set": self.unordered(value, path)}
        if type(value) is np.random.Generator:
            state = value.bit_generator.state
            return {"generator": self.value(state, path), "name": state["bit_generator"]}
        return self.foreign(value, path)

    def foreign(self, value: Any, path: str) -> Any:
        name = type(value).__name__
        if name == "MjData":
            return {"mujoco": self.array(_mujoco_get(value))}
        if name == "ALEInterface":
            # The emulator's state leaves out the action before, which the next frame may repeat; so a restored copy
            # goes wrong one frame later, once in a while (seen with ale-py 0.12).
            if value.getFloat("repeat_action_probability") > 0.0:
                raise NotCapturable(
                    f"{path} has sticky actions (repeat_action_probability > 0), which ALE does not save"
                )
            return {"ale": base64.b64encode(value.cloneState(include_rng=True).serialize()).decode()}
        if _hides_state(type(value)):
            return self.refuse(value, path)
        # By name: the order in which attributes came to be differs between an original and its copy.
        inner = {
            key: {"static": _identity(item)} if _is_model(value, key) else self.value(item, f"{path}.{key}")
            for key, item in sorted(_attributes(value).items())
        }
        return {"object": inner, "of": _identity(value)}

    def items(self, values: Any, path: str) -> list[Any]:
        return [self.value(item, f"{path}[{i}]") for i, item in enumerate(values)]

    def unordered(self, values: Any, path: str) -> list[Any]:
        """Sorted, because a set of strings has another order in every process."""
        return sorted((self.key(item, path) for item in values), key=json.dumps)

    def key(self, key: Any, path: str) -> Any:
        """A dict's key or a set's member: immutable, or refused."""
        plain = type(key) in _PLAIN or isinstance(key, enum.Enum) or (type(key) is tuple and not _refusable(key))
        return self.value(key, path) if plain else self.refuse(key, f"a key in {path}")

    def array(self, value: Any) -> str:
        name = f"state.{len(self.arrays)}"
        self.arrays[name] = np.array(value, copy=True, order="C")
        return name

    @staticmethod
    def refuse(value: Any, path: str) -> Any:
        raise NotCapturable(f"{path} is a {_identity(type(value))}, whose state is out of reach")


class _Reader:
    """Walks the tree in the order in which it was written. `current` is what the copy holds in that place."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.made: list[Any] = []  # mutable values by number

    def value(self, node: Any, current: Any) -> Any:
        match node:
            case {"same": number}:
                return self.made[number]
            case {"scalar": name}:
                return self.arrays[name].dtype.type(self.arrays[name].item())
            case {"bytes": text}:
                return base64.b64decode(text)
            case {"tuple": nodes}:
                return tuple(self.items(nodes, current))
            case {"frozenset": nodes}:
                return frozenset(self.items(nodes, None))
            case {"enum": name, "of": identity}:
                return _enumeration(identity)[name]
            case {"static": identity}:
                return _checked(current, identity)
            case dict():
                return self.mutable(node, current)
        return node

    def mutable(self, node: dict[str, Any], current: Any) -> Any:
        match node:
            case {"array": name, "shape": shape, "dtype": dtype}:
                return self.new(np.frombuffer(self.arrays[name].tobytes(), dtype).reshape(shape).copy())
            case {"array": name}:
                return self.new(self.arrays[name].copy())
            case {"list": nodes}:
                return self.fill([], nodes, current)
            case {"deque": nodes, "maxlen": maxlen}:
                return self.fill(deque(maxlen=maxlen), nodes, current)
            case {"set": nodes}:
                return self.new(set(self.items(nodes, None)))
            case {"dict": pairs}:
                return self.mapping(pairs, current)
            case {"generator": state, "name": name}:
                return self.generator(state, name, current)
            case {"mujoco": name}:
                return _mujoco_set(self.new(current), self.arrays[name])
            case {"ale": text}:
                return _ale_set(self.new(current), base64.b64decode(text))
            case {"object": attributes, "of": identity}:
                return self.object(attributes, _checked(current, identity))
        raise ValueError(f"a captured state has a part of an unknown kind: {sorted(node)}")

    def new(self, value: Any) -> Any:
        self.made.append(value)
        return value

    def used(self, current: Any) -> bool:
        return any(made is current for made in self.made)

    def items(self, nodes: Any, current: Any) -> list[Any]:
        held = list(current) if isinstance(current, (list, tuple, deque)) else []
        return [self.value(node, held[i] if i < len(held) else None) for i, node in enumerate(nodes)]

    def fill(self, made: Any, nodes: Any, current: Any) -> Any:
        self.new(made).extend(self.items(nodes, current))
        return made

    def mapping(self, pairs: Any, current: Any) -> Any:
        made = self.new({})
        held = current if isinstance(current, dict) else {}
        for node, inner in pairs:
            key = self.value(node, None)
            made[key] = self.value(inner, held.get(key))
        return made

    def generator(self, state: Any, name: str, current: Any) -> Any:
        if name not in _BIT_GENERATORS:
            raise ValueError(f"a captured state names the bit generator {name!r}")
        fits = type(current) is np.random.Generator and type(current.bit_generator).__name__ == name
        if not fits or self.used(current):
            current = np.random.Generator(getattr(np.random, name)())
        # In place: what draws from this generator without being an attribute goes on drawing from it.
        self.new(current)
        current.bit_generator.state = self.value(state, None)
        return current

    def object(self, attributes: dict[str, Any], current: Any) -> Any:
        held = _attributes(current)
        if self.used(current):  # the copy has one object where the original has two
            kind: Any = type(current)
            current = kind.__new__(kind)
            for name, value in held.items():
                setattr(current, name, value)
        self.new(current)
        for name in held.keys() - attributes.keys():
            delattr(current, name)
        for name, inner in attributes.items():
            if name.startswith("__"):
                raise ValueError(f"a captured state names the attribute {name!r}")
            setattr(current, name, self.value(inner, held.get(name)))
        return current


def _checked(current: Any, identity: str) -> Any:
    if _identity(current) != identity:
        raise ValueError(f"the copy has {_identity(current)} where the original has {identity}")
    return current


def _enumeration(identity: str) -> Any:
    module, _, path = identity.partition(":")
    found: Any = sys.modules[module]  # never imported here: the environment's own modules are there already
    for part in path.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, enum.Enum)):
        raise ValueError(f"a captured state names {identity!r} as an enumeration")
    return found


class _Empty:
    """The size of an instance that keeps everything in its __dict__."""


def _slots(kind: type) -> list[str]:
    return [name for base in kind.__mro__ for name, value in vars(base).items()
            if isinstance(value, types.MemberDescriptorType)]  # fmt: skip


def _hides_state(kind: type) -> bool:
    """Whether instances hold more than attributes: a class written in C, or one that inherits from such a class."""
    size = _Empty.__basicsize__ + 8 * len(_slots(kind))  # 8 bytes a pointer
    return kind.__itemsize__ != 0 or kind.__basicsize__ > size or kind.__module__ == "builtins"


def _attributes(instance: Any) -> dict[str, Any]:
    slots = {name: getattr(instance, name) for name in _slots(type(instance)) if hasattr(instance, name)}
    return slots | getattr(instance, "__dict__", {})


def _refusable(key: tuple[Any, ...]) -> bool:
    return any(type(item) not in _PLAIN and (type(item) is not tuple or _refusable(item)) for item in key)


def _identity(value: Any) -> str:
    """Which function, class or module a value is; of anything else, its class."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    named = value if isinstance(value, (type, *_STATIC_FUNCTIONS)) else type(value)
    return f"{getattr(named, '__module__', None)}:{named.__qualname__}"


def _is_model(owner: Any, name: str) -> bool:
    """Toy text publishes its transitions as `P` and never changes it; copying Taxi's takes 0.1 s an environment."""
    return name == "P" and type(owner).__module__.startswith("gymnasium.envs.toy_text.")


def _mujoco_get(data: Any) -> np.ndarray:
    mujoco = sys.modules["mujoco"]  # the environment imported it
    spec = mujoco.mjtState.mjSTATE_INTEGRATION  # everything that the next mj_step depends on
    state = np.empty(mujoco.mj_stateSize(data.model, spec), np.float64)
    mujoco.mj_getState(data.model, data, state, spec)
    return state


def _mujoco_set(data: Any, state: np.ndarray) -> Any:
    mujoco = sys.modules["mujoco"]
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(data.model, data, state, spec)
    mujoco.mj_forward(data.model, data)  # derived quantities that observations read ...
    mujoco.mj_setState(data.model, data, state, spec)  # ... whose solver touches the warm start
    return data


def _ale_set(ale: Any, state: bytes) -> Any:
    ale.restoreState(sys.modules["ale_py"].ALEState(state))
    return ale
