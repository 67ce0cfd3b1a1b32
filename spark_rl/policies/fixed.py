"""Policies without weights: uniform over the action space, or a function of the user's. They make datasets."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from spark_rl.errors import RunError, UserError
from spark_rl.policies.acting import Act
from spark_rl.policies.features import Observation
from spark_rl.policies.spec import PolicySpec


class UniformActing:
    """Every action with the same probability; a box without finite bounds has no uniform distribution."""

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        leaf = spec.action.only
        self._leaf = leaf
        if leaf.kind == "box":
            self._low = np.resize(np.array(leaf.low, np.float64), leaf.size).reshape(leaf.shape)
            self._width = np.resize(np.array(leaf.high, np.float64), leaf.size).reshape(leaf.shape) - self._low
            if not np.isfinite(self._width).all():
                raise UserError("a random policy", f"action bounds {leaf.low} to {leaf.high}", "finite bounds",
                                "write a scripted policy instead")  # fmt: skip
            self._log_prob = -float(np.log(self._width).sum())
        else:
            self._start, self._n = (np.array(v, np.int64).reshape(leaf.shape) for v in (leaf.start, leaf.n))
            self._log_prob = -float(np.log(self._n).sum())

    def initial_state(self, num_envs: int) -> None:
        """No memory, no state."""

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """See ActingPolicy."""
        num_envs = len(next(iter(observation.values())))
        log_prob = np.full(num_envs, self._log_prob, np.float32)
        if self._leaf.kind == "box":
            raw = (self._low + rng.random((num_envs, *self._leaf.shape)) * self._width).astype(np.float32)
            return Act(raw, log_prob, raw)
        return Act(self._start + rng.integers(0, self._n, (num_envs, *self._leaf.shape)), log_prob)

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """RunError: no action is more probable than another."""
        raise RunError("greedy evaluation", "a uniform policy", "a policy with a most probable action")


class ScriptedActing:
    """A function of the user's: called with the observations of N environments and a generator.

    `function(observation, rng)` gets the array [N, *shape] of a plain space, or ``{leaf name: array}``, and returns the
    actions [N, ...]; or a pair of those and their natural log-probabilities [N]. Without them the probability is
    unknown: NaN here, NULL in the table. Randomness may come from `rng` only, or retries will not repeat it.
    """

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        self._name = spec.entry_point
        self._leaf = spec.action.only
        self._plain = spec.observation.structure == "leaf"
        self._function = load_function(spec.entry_point)

    def initial_state(self, num_envs: int) -> None:
        """No memory, no state."""

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """See ActingPolicy; RunError when the function returns something else than N actions."""
        num_envs = len(next(iter(observation.values())))
        answer = self._function(observation[""] if self._plain else observation, rng)
        chosen, log_prob = answer if isinstance(answer, tuple) else (answer, np.full(num_envs, np.nan))
        action, log_prob = np.asarray(chosen), np.asarray(log_prob, np.float32)
        if action.shape != (num_envs, *self._leaf.shape) or log_prob.shape != (num_envs,):
            raise RunError(f"scripted policy {self._name}", f"actions {action.shape}, log-probs {log_prob.shape}",
                           f"actions {(num_envs, *self._leaf.shape)}, log-probs {(num_envs,)}")  # fmt: skip
        action = action.astype(self._leaf.dtype)
        return Act(action, log_prob, action if self._leaf.kind == "box" else None)

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ActingPolicy; the script with a generator that is the same at every call."""
        return self.act(observation, state, np.random.default_rng(0))


def load_function(entry_point: str) -> Callable[..., Any]:
    """The function that "module:function" names; UserError where Python cannot import it."""
    module, _, name = entry_point.rpartition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function
    except (ImportError, AttributeError, ValueError) as error:
        got, wanted = f"{entry_point!r} ({error})", '"module:function" that Python can import'
        todo = "check the spelling, and that the module is installed on the executors too"
        raise UserError("scripted policy", got, wanted, todo) from error
