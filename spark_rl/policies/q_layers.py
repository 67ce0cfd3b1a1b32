"""The layers of an action-value network, as data that the numpy and the torch side build the same network from.

    features -> q.0 -> q.1 -> ... -> q.head                                    [A * K] outputs
    dueling:    q.0 -> ... -> value.hidden -> value.head                       [K]
                          \\-> advantage.hidden -> advantage.head               [A * K]

A actions, K numbers an action: 1 value, or the atoms or quantiles of its distribution. Dueling streams part before the
last hidden layer, so each has one of its own. Source: Wang et al. 2016, equation 9, arXiv:1511.06581.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spark_rl.errors import UserError
from spark_rl.policies.spec import PolicySpec

NOISE = "_noise"  # "q.0.weight_noise" is the deviation of "q.0.weight"


@dataclass(frozen=True, slots=True)
class Head:
    """What is said about each action, and how."""

    num_actions: int  # A
    num_atoms: int = 1  # K
    dueling: bool = False
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Layers:
    """The trunk, whose layers all end in the activation, and one stream or two, whose last layers do not."""

    trunk: tuple[Layer, ...]
    streams: tuple[tuple[Layer, ...], ...]

    @property
    def all(self) -> tuple[Layer, ...]:
        """In the order in which the flat vector holds them."""
        return self.trunk + tuple(layer for stream in self.streams for layer in stream)


def layers(size: int, hidden: tuple[int, ...], head: Head) -> Layers:
    """The layers from `size` features on."""
    shared = hidden[:-1] if head.dueling else hidden
    sizes = (size, *shared)
    trunk = tuple(Layer(f"q.{i}", sizes[i], units) for i, units in enumerate(shared))
    if not head.dueling:
        return Layers(trunk, ((Layer("q.head", sizes[-1], head.num_actions * head.num_atoms),),))

    def stream(name: str, outputs: int) -> tuple[Layer, ...]:
        inner = tuple(Layer(f"{name}.hidden", sizes[-1], units) for units in hidden[-1:])
        return (*inner, Layer(f"{name}.head", (sizes[-1], *hidden[-1:])[-1], outputs))

    return Layers(trunk, (stream("advantage", head.num_actions * head.num_atoms), stream("value", head.num_atoms)))


def num_actions(spec: PolicySpec) -> int:
    """A of a Discrete action space; UserError for another."""
    leaf = spec.action.only
    if leaf.kind != "discrete":
        raise UserError("action space", leaf.kind, "Discrete, for a value of every action",
                        "use an actor-critic algorithm (ppo, sac, td3)")  # fmt: skip
    return leaf.n[0]


def head_of(spec: PolicySpec, tensors: Mapping[str, np.ndarray]) -> Head:
    """The head that weights belong to."""
    actions = num_actions(spec)
    dueling = "value.head.weight" in tensors
    name = "advantage.head" if dueling else "q.head"
    rows = len(tensors[f"{name}.weight"])
    return Head(actions, rows // actions, dueling, f"{name}.weight{NOISE}" in tensors)
