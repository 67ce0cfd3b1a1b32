"""Take an environment's state out as plain data, and put it into a fresh copy.

Pickle is no way to do this: pickling MuJoCo and ALE environments succeeds and gives back a *fresh* environment (they
pickle their constructor's arguments), and nothing pickled may be read from a run directory anyway. So the objects'
attributes are walked. Known kinds are copied, a few foreign objects have a state interface of their own, and anything
else refuses: an environment is never half captured. Whether a capture is exact is proved by stepping (see `carry`).
"""

from __future__ import annotations

import base64
import enum
import sys
import types
from collections import deque
from typing import Any

import gymnasium
import numpy as np

# Set once by the constructor and never by a step; the fresh copy has its own.
_STATIC = (gymnasium.Space, gymnasium.envs.registration.EnvSpec, types.ModuleType, type, enum.Enum)
_STATIC_CLASSES = {"MjModel", "MujocoRenderer"}
_STATIC_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_BIT_GENERATORS = {"PCG64", "PCG64DXSM", "Philox", "MT19937", "SFC64"}


class NotCapturable(Exception):
    """The environment holds an object whose state cannot be read; the message names the attribute and its type."""


def capture(env: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A JSON-able tree and the arrays it refers to. Raises NotCapturable."""
    writer = _Writer()
    return writer.object(env, type(env).__name__), writer.arrays


def restore(env: Any, tree: Any, arrays: dict[str, np.ndarray]) -> None:
    """Put a captured state into an environment of the same construction that has been reset once."""
    _Reader(arrays).object(env, tree)


class _Writer:
    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.seen: set[int] = set()

    def object(self, instance: Any, path: str) -> Any:
        self.seen.add(id(instance))
        attributes = {}
        for name, value in vars(instance).items():
            node = self.value(value, f"{path}.{name}")
            if node is not _SKIP:
                attributes[name] = node
        return {"object": attributes}

    def value(self, value: Any, path: str) -> Any:
        if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
            return value
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
            name = f"state.{len(self.arrays)}"
            self.arrays[name] = np.array(value, copy=True, order="C")
            return {"array" if isinstance(value, np.ndarray) else "scalar": name}
        if isinstance(value, (list, tuple, deque, set, frozenset)):
            return self.collection(value, path)
        if isinstance(value, dict):
            items = [[self.value(k, path), self.value(v, f"{path}[{k!r}]")] for k, v in value.items()]
            return {"dict": [item for item in items if item[1] is not _SKIP]}
        if isinstance(value, bytes):
            return {"bytes": base64.b64encode(value).decode()}
        if isinstance(value, np.random.Generator):
            state = value.bit_generator.state
            return {"generator": self.value(state, path), "name": state["bit_generator"]}
        return self.foreign(value, path)

    def collection(self, value: Any, path: str) -> Any:
        nodes = [self.value(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if any(node is _SKIP for node in nodes):
            return _SKIP if all(node is _SKIP for node in nodes) else self.refuse(value, path)
        kind = next(name for name, cls in _COLLECTIONS.items() if isinstance(value, cls))
        return {kind: nodes, "maxlen": value.maxlen} if kind == "deque" else {kind: nodes}

    def foreign(self, value: Any, path: str) -> Any:
        name = type(value).__name__
        static = isinstance(value, _STATIC + _STATIC_FUNCTIONS) or name in _STATIC_CLASSES
        if static or id(value) in self.seen:
            return _SKIP
        if name == "MjData":
            return {"mujoco": self.value(_mujoco_get(value), path)}
        if name == "ALEInterface":
            return {"ale": self.value(value.cloneState(include_rng=True).serialize(), path)}
        # A Python class keeps its state in __dict__; one written in C without such an interface keeps it out of reach.
        if hasattr(value, "__dict__") and not type(value).__module__.startswith("builtins"):
            return self.object(value, path)
        return self.refuse(value, path)

    @staticmethod
    def refuse(value: Any, path: str) -> Any:
        raise NotCapturable(f"{path} is a {type(value).__module__}.{type(value).__name__}")


class _Reader:
    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def object(self, instance: Any, tree: Any) -> None:
        for name, node in tree["object"].items():
            if name.startswith("__"):
                raise ValueError(f"a captured state names the attribute {name!r}")
            kind = next(iter(node)) if isinstance(node, dict) else ""
            if kind == "object":
                self.object(getattr(instance, name), node)
            elif kind == "mujoco":
                _mujoco_set(getattr(instance, name), self.value(node["mujoco"]))
            elif kind == "ale":
                _ale_set(getattr(instance, name), self.value(node["ale"]))
            else:
                setattr(instance, name, self.value(node))

    def value(self, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        kind, content = next(iter(node.items()))
        if kind == "array":
            return self.arrays[content].copy()
        if kind == "scalar":
            return self.arrays[content].dtype.type(self.arrays[content].item())
        if kind == "dict":
            return {self.value(k): self.value(v) for k, v in content}
        if kind == "bytes":
            return base64.b64decode(content)
        if kind == "generator":
            return self.generator(node)
        values = (self.value(item) for item in content)
        return deque(values, maxlen=node["maxlen"]) if kind == "deque" else _COLLECTIONS[kind](values)

    def generator(self, node: Any) -> np.random.Generator:
        if node["name"] not in _BIT_GENERATORS:
            raise ValueError(f"a captured state names the bit generator {node['name']!r}")
        bits = getattr(np.random, node["name"])()
        bits.state = self.value(node["generator"])
        return np.random.Generator(bits)


_SKIP = object()
_COLLECTIONS: dict[str, Any] = {"list": list, "tuple": tuple, "deque": deque, "set": set, "frozenset": frozenset}


def _mujoco_get(data: Any) -> np.ndarray:
    mujoco = sys.modules["mujoco"]  # the environment imported it
    spec = mujoco.mjtState.mjSTATE_INTEGRATION  # everything that the next mj_step depends on
    state = np.empty(mujoco.mj_stateSize(data.model, spec), np.float64)
    mujoco.mj_getState(data.model, data, state, spec)
    return state


def _mujoco_set(data: Any, state: np.ndarray) -> None:
    mujoco = sys.modules["mujoco"]
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(data.model, data, state, spec)
    mujoco.mj_forward(data.model, data)  # derived quantities that observations read ...
    mujoco.mj_setState(data.model, data, state, spec)  # ... whose solver touches the warm start


def _ale_set(ale: Any, state: bytes) -> None:
    ale.restoreState(sys.modules["ale_py"].ALEState(state))
