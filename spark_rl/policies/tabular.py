"""Acting from a table of action values, and exploring while doing so. N environments, S states, A actions, G groups.

Everything that decides an action travels with the weights, the exploration of this iteration too: so a task stays a
pure function of its weights, and `action_log_prob` is the probability of what was done, exploration included.

weights: "q" float64 [S, A]; and, as far as the iteration explores,
  "explore.epsilon" []      that share of the actions is not greedy but uniform (or Boltzmann, with a temperature)
  "explore.ladder" []       alpha of Ape-X: group g explores with epsilon^(1 + alpha * g / (G - 1))
  "explore.temperature" []  softmax of the values over it, in units of the values; always, where there is no epsilon
  "explore.ucb" []          bonus c * sqrt(ln(1 + N(s)) / N(s, a)) on the values, from "count" int64 [S, A]
Sources: Watkins 1989 (epsilon), Auer et al. 2002 (UCB1), Horgan et al. 2018, arXiv:1803.00933 (the ladder).
"""

from __future__ import annotations

import copy

import numpy as np

from spark_rl.errors import UserError
from spark_rl.policies.acting import Act
from spark_rl.policies.exploration import apex_ladder
from spark_rl.policies.features import Observation
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.states import StateIndex
from spark_rl.schema.spaces import Leaf

Tensors = dict[str, np.ndarray]


def num_actions(leaf: Leaf) -> int:
    """A of a Discrete action space; UserError for another."""
    if leaf.kind != "discrete":
        raise UserError("action space", leaf.kind, "Discrete, for a table", "choose an algorithm with a network")
    return leaf.n[0]


class TabularActing:
    """See the module. An ActingPolicy without memory."""

    def __init__(self, spec: PolicySpec, tensors: Tensors) -> None:
        self._states = StateIndex(spec.observation)
        self._start = spec.action.only.start[0] if spec.action.only.start else 0
        self._tensors = tensors

    def in_group(self, group: int, num_groups: int) -> TabularActing:
        """The same policy with this group's rung of the ladder; itself where there is none."""
        alpha = self._tensors.get("explore.ladder")
        if alpha is None:
            return self
        epsilon = float(self._tensors["explore.epsilon"])
        bound = copy.copy(self)
        rung = apex_ladder(epsilon, num_groups, alpha=float(alpha))[group] if epsilon > 0 else 0.0
        bound._tensors = self._tensors | {"explore.epsilon": np.array(rung)}
        return bound

    def initial_state(self, num_envs: int) -> None:
        """No memory, no state."""

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """See ActingPolicy; one uniform number an environment."""
        prob = self._probabilities(observation)
        cumulative = np.cumsum(prob, axis=1)
        threshold = rng.random(len(prob)) * cumulative[:, -1]
        # The last action is left out, so that rounding at the top cannot give index A.
        return self._act(np.count_nonzero(cumulative[:, :-1] <= threshold[:, None], axis=1), prob)

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ActingPolicy; the first of equally good actions."""
        return self._act(self._rows("q", observation).argmax(axis=1), self._probabilities(observation))

    def _act(self, choice: np.ndarray, prob: np.ndarray) -> Act:
        with np.errstate(divide="ignore"):  # an optimistic bonus may leave the greedy action no probability
            log_prob = np.log(prob[np.arange(len(choice)), choice])
        return Act(choice + self._start, log_prob.astype(np.float32))

    def _probabilities(self, observation: Observation) -> np.ndarray:
        bonus = self._tensors.get("explore.ucb")
        count = None if bonus is None else self._rows("count", observation)
        return behaviour(self._rows("q", observation), count, self._tensors)

    def _rows(self, name: str, observation: Observation) -> np.ndarray:
        """Rows of a table for N observations, [N, A]."""
        rows: np.ndarray = self._tensors[name][self._states.index(observation)]
        return rows


def behaviour(value: np.ndarray, count: np.ndarray | None, explore: Tensors) -> np.ndarray:
    """The probability of every action, float64 [N, A], from values [N, A] and visits [N, A] (for UCB only).

    Equal values share their probability equally. An action never tried has an infinite UCB.
    """
    if "explore.ucb" in explore:
        assert count is not None
        total = np.log1p(count.sum(axis=1, keepdims=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            value = value + np.where(count > 0, float(explore["explore.ucb"]) * np.sqrt(total / count), np.inf)
    best = value == value.max(axis=1, keepdims=True)
    greedy = best / best.sum(axis=1, keepdims=True)
    other = np.full(value.shape, 1.0 / value.shape[1])
    if "explore.temperature" in explore:
        logits = (value - value.max(axis=1, keepdims=True)) / float(explore["explore.temperature"])
        other = np.exp(logits)
        other /= other.sum(axis=1, keepdims=True)
        if "explore.epsilon" not in explore:
            return other
    epsilon = float(explore.get("explore.epsilon", np.zeros(())))
    return (1.0 - epsilon) * greedy + epsilon * other
