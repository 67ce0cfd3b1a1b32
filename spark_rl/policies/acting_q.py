"""Acting by action values: epsilon-greedy, Boltzmann or by noisy layers. In numpy; the CNN is in `acting_q_torch`.

What decides an action travels with the weights: "explore.epsilon" [] and "explore.ladder" [], as `tabular` reads them,
and "support" [K], the atoms of a categorical distribution. N environments, A actions, K atoms.
"""

from __future__ import annotations

import copy

import numpy as np

from spark_rl.policies.acting import Act
from spark_rl.policies.exploration import apex_ladder
from spark_rl.policies.features import Features, Normalizer, Observation
from spark_rl.policies.q_layers import NOISE, Layer, head_of, layers
from spark_rl.policies.spec import PolicySpec

Tensors = dict[str, np.ndarray]


class QActing:
    """An ActingPolicy without memory; a subclass gives the network's scores.

    `action_log_prob` is that of the epsilon-mixture. Of noisy layers only the probability given the noise is known,
    not the one that counts, over all noise: there it is NaN, which is stored as NULL.
    """

    def __init__(self, spec: PolicySpec, tensors: Tensors) -> None:
        self._features = Features(spec.observation, images=spec.network == "nature_cnn")
        self._normalizer: Normalizer | None = None
        if spec.normalize_observation:
            self._normalizer = Normalizer(tensors["normalizer.mean"], tensors["normalizer.var"])
        self._head = head_of(spec, tensors)
        self._start = spec.action.only.start[0] if spec.action.only.start else 0
        self._support = tensors.get("support")
        self._epsilon = float(tensors.get("explore.epsilon", np.zeros(())))
        self._ladder = tensors.get("explore.ladder")

    def in_group(self, group: int, num_groups: int) -> QActing:
        """The same policy with this group's rung of Ape-X's ladder; itself where there is none."""
        if self._ladder is None or self._epsilon <= 0.0:
            return self
        bound = copy.copy(self)
        bound._epsilon = float(apex_ladder(self._epsilon, num_groups, alpha=float(self._ladder))[group])
        return bound

    def initial_state(self, num_envs: int) -> None:
        """No memory, no state."""

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """See ActingPolicy; two uniform numbers an environment, and the noise of noisy layers."""
        value = self.values(observation, rng if self._head.noisy else None)
        greedy = value.argmax(axis=1)
        num, actions = value.shape
        explores, other = rng.random(num) < self._epsilon, rng.integers(0, actions, num)
        choice = np.where(explores, other, greedy)
        known = not self._head.noisy
        log_prob = self._log_prob(choice == greedy, actions) if known else np.full(num, np.nan, np.float32)
        return Act(choice + self._start, log_prob)

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ActingPolicy; without noise, the first of equally good actions."""
        value = self.values(observation, None)
        choice = value.argmax(axis=1)
        return Act(choice + self._start, self._log_prob(np.ones(len(choice), bool), value.shape[1]))

    def values(self, observation: Observation, noise: np.random.Generator | None) -> np.ndarray:
        """The expected return of every action, float32 [N, A]; `noise` perturbs noisy layers, None leaves them."""
        scores = self.scores(observation, noise)
        if self._support is not None:
            exp = np.exp(scores - scores.max(axis=2, keepdims=True))
            return np.asarray((exp @ self._support) / exp.sum(axis=2))
        return scores[:, :, 0] if scores.shape[2] == 1 else scores.mean(axis=2)

    def scores(self, observation: Observation, noise: np.random.Generator | None) -> np.ndarray:
        """The network's output, float32 [N, A, K]."""
        raise NotImplementedError

    def encode(self, observation: Observation) -> np.ndarray:
        """Flat features as the network sees them, float32 [N, F]."""
        features = self._features.encode(observation)
        return features if self._normalizer is None else self._normalizer(features)

    def _log_prob(self, is_greedy: np.ndarray, num_actions: int) -> np.ndarray:
        prob = np.where(is_greedy, 1.0 - self._epsilon, 0.0) + self._epsilon / num_actions
        return np.log(prob).astype(np.float32)


class QMLPActing(QActing):
    """The MLP in numpy. The noise of noisy layers is drawn anew for every environment at every step."""

    def __init__(self, spec: PolicySpec, tensors: Tensors) -> None:
        super().__init__(spec, tensors)
        self._layers = layers(self._features.size, spec.hidden, self._head)
        self._tensors = {name: array for name, array in tensors.items() if "." in name}
        self._tanh = spec.activation == "tanh"

    def scores(self, observation: Observation, noise: np.random.Generator | None) -> np.ndarray:
        """See QActing."""
        x = self.encode(observation)
        for layer in self._layers.trunk:
            x = self._activate(self._linear(layer, x, noise))
        outputs = []
        for stream in self._layers.streams:
            y = x
            for layer in stream[:-1]:
                y = self._activate(self._linear(layer, y, noise))
            outputs.append(self._linear(stream[-1], y, noise))
        scores = outputs[0].reshape(len(x), self._head.num_actions, self._head.num_atoms)
        if self._head.dueling:
            scores = scores - scores.mean(axis=1, keepdims=True) + outputs[1][:, None, :]
        return scores

    def _linear(self, layer: Layer, x: np.ndarray, noise: np.random.Generator | None) -> np.ndarray:
        result: np.ndarray = x @ self._tensors[f"{layer.name}.weight"].T
        result += self._tensors[f"{layer.name}.bias"]
        if noise is not None:
            # Noise of the weights is an outer product, so it can be put on the inputs and outputs instead.
            before, after = _shaped(noise, (len(x), layer.inputs)), _shaped(noise, (len(x), layer.outputs))
            moved = (x * before) @ self._tensors[f"{layer.name}.weight{NOISE}"].T
            moved += self._tensors[f"{layer.name}.bias{NOISE}"]
            result += moved * after
        return result

    def _activate(self, x: np.ndarray) -> np.ndarray:
        return np.tanh(x, out=x) if self._tanh else np.maximum(x, 0.0, out=x)


def _shaped(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    normal = rng.standard_normal(shape, dtype=np.float32)
    return np.sign(normal) * np.sqrt(np.abs(normal))
