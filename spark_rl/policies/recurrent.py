"""The acting side of a policy with a memory, in numpy. The learner's network, in torch, is in `memory`.

N environments, H units of the memory, S numbers of its state.
"""

from __future__ import annotations

import numpy as np

from spark_rl.policies.acting import Act, FeedForward
from spark_rl.policies.features import Observation
from spark_rl.policies.spec import PolicySpec


class RecurrentActing(FeedForward):
    """Features -> layers -> memory -> head, float32 throughout. The state is all zeros where an episode begins."""

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        super().__init__(spec, tensors)
        self._layers = [(tensors[f"trunk.{i}.weight"].T, tensors[f"trunk.{i}.bias"]) for i in range(len(spec.hidden))]
        self._tanh = spec.activation == "tanh"
        self._cell = (LSTM if spec.recurrent == "lstm" else GRU)(tensors)
        self._state_size, self._units = spec.state_size, spec.recurrent_size
        self._head_weight = tensors["actor.head.weight"]
        self._head_bias = tensors["actor.head.bias"][:, None]

    def initial_state(self, num_envs: int) -> np.ndarray:  # type: ignore[override]
        """Nothing remembered: zeros [N, S]."""
        return np.zeros((num_envs, self._state_size), np.float32)

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """See ActingPolicy."""
        params, after = self._remember(observation, state)
        action, raw_action, log_prob = self._sampler.sample(params, rng)
        return Act(action, log_prob, raw_action, after)

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ActingPolicy."""
        params, after = self._remember(observation, state)
        action, raw_action, log_prob = self._sampler.mode(params)
        return Act(action, log_prob, raw_action, after)

    def _remember(self, observation: Observation, state: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Distribution parameters [P, N], and the state after this observation [N, S]."""
        assert state is not None, "a policy with a memory acts on a state"
        x = self.encode(observation)
        for weight, bias in self._layers:
            x = x @ weight + bias
            x = np.tanh(x, out=x) if self._tanh else np.maximum(x, 0.0, out=x)
        after = self._cell(x, state)
        params: np.ndarray = self._head_weight @ after[:, : self._units].T
        params += self._head_bias
        return self.allowed(params, observation), after


class LSTM:
    """torch.nn.LSTMCell; the state is h and c side by side."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self._weight_ih, self._weight_hh = tensors["core.weight_ih"].T, tensors["core.weight_hh"].T
        self._bias = tensors["core.bias_ih"] + tensors["core.bias_hh"]

    def __call__(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        """[N, X], [N, 2H] -> [N, 2H]."""
        h, c = np.split(state, 2, axis=1)
        gates = x @ self._weight_ih
        gates += h @ self._weight_hh
        gates += self._bias
        i, f, g, o = np.split(gates, 4, axis=1)
        after = np.empty_like(state)
        h_after, c_after = np.split(after, 2, axis=1)
        np.multiply(_sigmoid(f), c, out=c_after)
        c_after += _sigmoid(i) * np.tanh(g)
        np.multiply(_sigmoid(o), np.tanh(c_after), out=h_after)
        return after


class GRU:
    """torch.nn.GRUCell."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self._weight_ih, self._weight_hh = tensors["core.weight_ih"].T, tensors["core.weight_hh"].T
        self._bias_ih, self._bias_hh = tensors["core.bias_ih"], tensors["core.bias_hh"]

    def __call__(self, x: np.ndarray, state: np.ndarray) -> np.ndarray:
        """[N, X], [N, H] -> [N, H]."""
        r_x, z_x, n_x = np.split(x @ self._weight_ih + self._bias_ih, 3, axis=1)
        r_h, z_h, n_h = np.split(state @ self._weight_hh + self._bias_hh, 3, axis=1)
        update = _sigmoid(z_x + z_h)
        candidate = np.tanh(n_x + _sigmoid(r_x + r_h) * n_h)
        after: np.ndarray = candidate + update * (state - candidate)
        return after


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), which as a tanh cannot overflow."""
    result: np.ndarray = np.tanh(x * np.float32(0.5))
    result += np.float32(1.0)
    result *= np.float32(0.5)
    return result
