"""Acting in a finite box: the squashed Gaussian of SAC, and the deterministic policy of TD3 and DDPG. numpy only.

The network is an MLP `actor.{i}.*`, `actor.head.*`. Its outputs, of D action components: mean and log deviation before
squashing [2 D] for a Gaussian, the action before squashing [D] for a deterministic policy. tanh takes them to [-1, 1],
and a scale and a centre to the box. N environments.
"""

from __future__ import annotations

import math

import numpy as np

from spark_rl.errors import UserError
from spark_rl.policies.acting import Act
from spark_rl.policies.features import Features, Normalizer, Observation
from spark_rl.policies.sampling import LOG_SQRT_2PI
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf

LOG_STD_RANGE = (-5.0, 2.0)  # of the Gaussian before squashing; narrower than the source's -20, as in CleanRL


class Box:
    """An action box [low, high] and its unit form [-1, 1]."""

    def __init__(self, leaf: Leaf) -> None:
        bounds = np.stack([np.resize(np.asarray(b, np.float64), leaf.size) for b in (leaf.low, leaf.high)])
        if leaf.kind != "box" or not np.isfinite(bounds).all():
            raise UserError("action space", f"{leaf.kind} from {leaf.low} to {leaf.high}", "a Box with finite bounds",
                            "rescale the actions with a wrapper, or use ppo")  # fmt: skip
        self._shape, self._dtype = leaf.shape, np.dtype(leaf.dtype)
        self.centre = ((bounds[1] + bounds[0]) / 2.0).astype(np.float32)
        self.scale = ((bounds[1] - bounds[0]) / 2.0).astype(np.float32)
        self.log_scale = float(np.log(self.scale).sum())
        self.size = leaf.size

    def from_unit(self, unit: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, *shape], of the leaf's dtype."""
        action = (self.centre + self.scale * unit).astype(self._dtype)
        return action.reshape(len(unit), *self._shape)

    def to_unit(self, action: np.ndarray) -> np.ndarray:
        """[N, *shape] -> float32 [N, D]."""
        unit: np.ndarray = (action.reshape(len(action), -1).astype(np.float32) - self.centre) / self.scale
        return unit


class ContinuousActing:
    """An ActingPolicy without memory. "explore.uniform" 1 among the weights: act uniformly in the box (warm-up)."""

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        self._features = Features(spec.observation, images=False)
        self._normalizer: Normalizer | None = None
        if spec.normalize_observation:
            self._normalizer = Normalizer(tensors["normalizer.mean"], tensors["normalizer.var"])
        self._layers = [(tensors[f"actor.{i}.weight"].T, tensors[f"actor.{i}.bias"]) for i in range(len(spec.hidden))]
        self._head = (tensors["actor.head.weight"].T, tensors["actor.head.bias"])
        self._tanh = spec.activation == "tanh"
        self._box = Box(spec.action.only)
        self._uniform = bool(tensors.get("explore.uniform", np.zeros(())))

    def initial_state(self, num_envs: int) -> None:
        """No memory, no state."""

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """See ActingPolicy."""
        if not self._uniform:
            return self.explore(self.outputs(observation), rng)
        num = len(next(iter(observation.values())))
        action = self._box.from_unit(rng.uniform(-1.0, 1.0, (num, self._box.size)))
        log_prob = np.full(num, -self._box.size * math.log(2.0) - self._box.log_scale, np.float32)
        return Act(action, log_prob, action)

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ActingPolicy; the squashed mean."""
        raise NotImplementedError

    def explore(self, outputs: np.ndarray, rng: np.random.Generator) -> Act:
        """The policy's own sample, from the network's outputs [N, P]."""
        raise NotImplementedError

    def outputs(self, observation: Observation) -> np.ndarray:
        """The network's outputs, float32 [N, P]."""
        x = self._features.encode(observation)
        if self._normalizer is not None:
            x = self._normalizer(x)
        for weight, bias in self._layers:
            x = x @ weight
            x += bias
            x = np.tanh(x, out=x) if self._tanh else np.maximum(x, 0.0, out=x)
        result: np.ndarray = x @ self._head[0] + self._head[1]
        return result


class SquashedActing(ContinuousActing):
    """SAC's. `action_log_prob` is the density of the squashed action, in (action units)^-D; raw and action are one."""

    def explore(self, outputs: np.ndarray, rng: np.random.Generator) -> Act:
        """See ContinuousActing."""
        return self._act(outputs, rng.standard_normal((len(outputs), self._box.size), dtype=np.float32))

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ContinuousActing."""
        outputs = self.outputs(observation)
        return self._act(outputs, np.zeros((len(outputs), self._box.size), np.float32))

    def _act(self, outputs: np.ndarray, noise: np.ndarray) -> Act:
        mean, log_std = np.split(outputs, 2, axis=1)
        log_std = np.clip(log_std, *LOG_STD_RANGE)
        before = mean + np.exp(log_std) * noise
        # log(1 - tanh(x)^2) without cancellation: 2 (log 2 - x - softplus(-2 x)).
        log_slope = 2.0 * (math.log(2.0) - before - np.logaddexp(0.0, -2.0 * before))
        density = -0.5 * noise**2 - log_std - LOG_SQRT_2PI - log_slope
        action = self._box.from_unit(np.tanh(before))
        return Act(action, (density.sum(axis=1) - self._box.log_scale).astype(np.float32), action)


class DeterministicActing(ContinuousActing):
    """TD3's and DDPG's: Gaussian noise of deviation "explore.noise" (units of [-1, 1]) on the action, then a clip.

    `action_log_prob` is the density of the unclipped sample, `raw_action`.
    """

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        super().__init__(spec, tensors)
        self._std = float(tensors["explore.noise"])
        self._log_norm = self._box.size * (LOG_SQRT_2PI + math.log(self._std)) + self._box.log_scale

    def explore(self, outputs: np.ndarray, rng: np.random.Generator) -> Act:
        """See ContinuousActing."""
        return self._act(outputs, rng.standard_normal(outputs.shape, dtype=np.float32))

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ContinuousActing."""
        outputs = self.outputs(observation)
        return self._act(outputs, np.zeros_like(outputs))

    def _act(self, outputs: np.ndarray, noise: np.ndarray) -> Act:
        sample = np.tanh(outputs) + np.float32(self._std) * noise
        log_prob = -0.5 * (noise**2).sum(axis=1) - self._log_norm
        clipped = self._box.from_unit(np.clip(sample, -1.0, 1.0))
        return Act(clipped, log_prob.astype(np.float32), self._box.from_unit(sample))
