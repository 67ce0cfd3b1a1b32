"""The DQN family: one update on a window of iterations. N rows of a minibatch, A actions, K atoms.

DQN is Mnih et al. 2015; the choices are those of Rainbow (Hessel et al. 2018, arXiv:1710.02298) and QR-DQN (Dabney et
al. 2018, arXiv:1710.10044), each in one place:
  n_steps      replay.sample sums rewards                               Sutton 1988
  prioritized  _draw: rows by their TD error, importance weights        Schaul et al. 2016, arXiv:1511.05952
  dueling      the network's streams                                    Wang et al. 2016, arXiv:1511.06581
  noisy        the network's layers                                     Fortunato et al. 2018, arXiv:1706.10295
  double       _next: who chooses the action that is valued             van Hasselt et al. 2016, arXiv:1509.06461
  categorical  _next, _loss                                             Bellemare et al. 2017, arXiv:1707.06887
  quantile     _next, _loss
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spark_rl import seeding
from spark_rl.algorithms.adam import FlatAdam
from spark_rl.algorithms.dqn_config import DQNConfig
from spark_rl.algorithms.off_policy import Window, rows_at_once
from spark_rl.data.batch import Batch
from spark_rl.losses import q_learning as losses
from spark_rl.policies import exploration
from spark_rl.policies.q_layers import Head, num_actions
from spark_rl.policies.q_networks import QNetwork
from spark_rl.policies.spec import PolicySpec

PRIORITY_MIN = 1e-6  # added to TD errors, so that no row is never drawn again; Schaul et al. 2016, section 3.3


@dataclass(slots=True)
class Minibatch:
    """N transitions on the device."""

    features: Tensor  # float32 [N, F]
    images: list[Tensor]  # uint8 [N, *shape] each
    action: Tensor  # int64 [N], from 0
    reward: Tensor  # float32 [N]
    bootstrap: Tensor  # float32 [N], see losses.q_learning
    next_features: Tensor
    next_images: list[Tensor]
    weight: Tensor  # float32 [N]
    place: np.ndarray  # int64 [N], where the rows lie in the window


class DQN:
    """The learner's state: online and target network, optimizer, and the window of rows it draws from.

    The same seed, config and batches give the same weights to the bit, on one device type and thread count.
    """

    Config = DQNConfig

    def __init__(
        self,
        config: DQNConfig,
        policy: PolicySpec,
        *,
        device: torch.device | str,
        seed: int,
        num_envs: int,
        mixed_precision: bool = False,
    ) -> None:
        self.config, self.policy, self.device = config, policy, torch.device(device)
        self._seed = seed
        self._mixed_precision = mixed_precision
        head = Head(num_actions(policy), config.num_outputs, config.dueling, config.noisy)
        initial = seeding.integer(seed, seeding.INIT)
        self.network, self.target = (QNetwork(policy, head, seed=initial, device=self.device) for _ in range(2))
        self._optimizer = FlatAdam(self.network.flat, eps=config.adam_eps)
        self._window = Window(policy, capacity=config.replay_capacity, prioritized=config.prioritized,
                              replay_ratio=config.replay_ratio, learning_starts=config.learning_starts,
                              device=self.device)  # fmt: skip
        self._action_start = policy.action.only.start[0] if policy.action.only.start else 0
        self._support = torch.linspace(config.value_min, config.value_max, config.num_outputs, device=self.device)

    @torch.no_grad()
    def update(self, batch: Batch, *, iteration: int, progress: float) -> dict[str, float]:
        """Takes the rows into the window and makes the gradient steps that they allow; metrics.

        `progress` in [0, 1] is the share of the run's env steps taken before this iteration; schedules follow it.
        """
        config = self.config
        num_steps = self._window.append(batch, iteration)
        rng = seeding.generator(self._seed, seeding.LEARNER, iteration)
        rate = config.learning_rate * (1.0 - progress if config.learning_rate_schedule == "linear" else 1.0)
        sums = torch.zeros(3, device=self.device)  # of losses, values and gradient norms
        noise = self._noise(rng, num_steps)
        first = self._window.gradient_steps - num_steps
        for step, part in enumerate(self._draw(rng, num_steps, progress)):
            for network, normal in zip((self.network, self.target), noise[step] if config.noisy else (), strict=False):
                network.perturb(normal)
            sums += self._step(part, rate)
            if (first + step + 1) % config.target_every == 0:
                self.target.flat.lerp_(self.network.flat, config.target_share)
        self._window.finish(batch)
        result = {
            "learner/gradient_steps": float(num_steps),
            "learner/learning_rate": rate,
            "learner/exploration": self._epsilon(),
            "learner/replay_rows": float(self._window.replay.num_rows),
        }
        if num_steps:
            loss, value, norm = (sums / num_steps).tolist()
            result |= {"learner/critic_loss": loss, "learner/value_mean": value, "learner/gradient_norm": norm}
        return result

    def weights(self) -> dict[str, np.ndarray]:
        """What the acting side loads: the online network, how it explores, and the observation normaliser."""
        result = self.network.weights() | self._window.statistics()
        result["explore.epsilon"] = np.asarray(self._epsilon())
        if self.config.epsilon_ladder:
            result["explore.ladder"] = np.asarray(self.config.epsilon_ladder)
        if self.config.distribution == "categorical":
            result["support"] = self._support.cpu().numpy()
        return result

    @property
    def window(self) -> list[int]:
        """Iterations that the next update may draw from."""
        return self._window.iterations

    def recall(self, batch: Batch, *, iteration: int) -> None:
        """Takes in an iteration of the window again, after `load_state_dict`."""
        self._window.recall(batch, iteration)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on but the rows, which the dataset has."""
        result: dict[str, Any] = dict(self.network.weights())
        result |= {f"target.{name}": array for name, array in self.target.weights().items()}
        result |= {f"optimizer.{name}": array for name, array in self._optimizer.state().items()}
        return result | {f"window.{name}": value for name, value in self._window.state().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; RunError where the state is that of another policy. `recall` comes next."""

        def under(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        self.network.load_weights(state)
        self.target.load_weights(under("target."))
        self._optimizer.load(under("optimizer."))
        self._window.load(under("window."))

    def _epsilon(self) -> float:
        """Of the version that acts next: a function of the env steps taken until then."""
        config = self.config
        schedule = exploration.exponential if config.epsilon_schedule == "exponential" else exploration.linear
        done = min(1.0, self._window.env_steps / config.epsilon_steps)
        return schedule(done, start=config.epsilon, end=config.epsilon_end, fraction=1.0)

    def _noise(self, rng: np.random.Generator, num_steps: int) -> Tensor:
        """Standard normals for every step's online and target network, [num_steps, 2, noise size]."""
        shape = (num_steps, 2, self.network.noise_size)
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(self.device)

    def _draw(self, rng: np.random.Generator, num_steps: int, progress: float) -> Iterator[Minibatch]:
        """The iteration's minibatches. Uniform ones are gathered many at a time, which costs a tenth of one by one."""
        config, replay = self.config, self._window.replay
        if config.prioritized:
            beta = config.priority_beta + (1.0 - config.priority_beta) * progress
            for _ in range(num_steps):
                place, weight = replay.draw_prioritized(rng, config.batch_size, beta=beta)
                yield from self._minibatches(place, weight, 1)
            return
        at_once = rows_at_once(self.policy, config.batch_size)
        for done in range(0, num_steps, at_once):
            num = min(at_once, num_steps - done)
            place = replay.draw(rng, num * config.batch_size)
            yield from self._minibatches(place, np.ones(len(place), np.float32), num)

    def _minibatches(self, place: np.ndarray, weight: np.ndarray, num: int) -> Iterator[Minibatch]:
        sample = self._window.replay.sample(place, num_steps=self.config.n_steps, discount=self.config.discount)
        features, images = self._window.inputs(sample.observation)
        next_features, next_images = self._window.inputs(sample.next_observation)
        columns = [self._window.tensor(column) for column in (
            sample.action - self._action_start, sample.reward.astype(np.float32), sample.bootstrap.astype(np.float32),
            weight,
        )]  # fmt: skip
        tensors = [features, *columns[:3], next_features, columns[3]]
        parts = zip(*(tensor.chunk(num) for tensor in (*tensors, *images, *next_images)), strict=True)
        for part, where in zip(parts, np.split(place, num), strict=True):
            x, action, reward, bootstrap, next_x, w, *rest = part
            middle = len(images)
            yield Minibatch(x, rest[:middle], action, reward, bootstrap, next_x, rest[middle:], w, where)

    def _step(self, part: Minibatch, rate: float) -> Tensor:
        """One gradient step; its loss, mean value and gradient norm, [3]."""
        with self._autocast():
            next_scores = self.target(part.next_features, part.next_images)
            chooser = self.network(part.next_features, part.next_images) if self.config.double else next_scores
            target = self._next(part, next_scores, chooser)
            scores = self.network(part.features, part.images, learn=True)
        chosen = losses.of_action(scores.detach(), part.action)
        loss, slope, error = self._loss(chosen, target, part.weight)
        if self.config.prioritized:
            priority = (error.abs() + PRIORITY_MIN).pow(self.config.priority_exponent)
            self._window.replay.set_priorities(part.place, priority.cpu().numpy().astype(np.float64))
        slopes = torch.zeros_like(scores)
        slopes[torch.arange(len(slopes), device=self.device), part.action] = slope
        gradient = self.network.backward(scores, slopes)
        norm = torch.linalg.vector_norm(gradient)
        gradient.mul_((self.config.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self._optimizer.step(gradient, learning_rate=rate)
        self.network.refresh()
        return torch.stack([loss, self._mean(chosen).mean(), norm])

    def _next(self, part: Minibatch, scores: Tensor, chooser: Tensor) -> Tensor:
        """What the chosen actions' scores should have been: [N] values, [N, K] probabilities or [N, K] returns."""
        best = losses.of_action(scores, self._mean(chooser).argmax(dim=1))
        if self.config.distribution == "categorical":
            return losses.project(part.reward, part.bootstrap, torch.softmax(best, dim=1), self._support)
        target = losses.td_target(part.reward[:, None], part.bootstrap[:, None], best)
        return target if self.config.distribution == "quantile" else target.squeeze(1)

    def _loss(self, chosen: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss [], its slope at the chosen actions' scores [N, K], and what priorities are made of [N].

        Priorities are the TD error, or the distribution's loss in its place (as in Rainbow).
        """
        if self.config.distribution == "categorical":
            loss, row = losses.cross_entropy(chosen, target, weight)
            return loss, losses.cross_entropy_slope(chosen, target, weight), row
        if self.config.distribution == "quantile":
            loss, row = losses.quantile_huber(chosen, target, weight)
            return loss, losses.quantile_huber_slope(chosen, target, weight), row
        value = chosen.squeeze(1)
        slope = losses.huber_slope(value, target, weight)
        return losses.huber_loss(value, target, weight), slope[:, None], value - target

    def _mean(self, scores: Tensor) -> Tensor:
        """The expected return that scores stand for: [..., K] -> [...]."""
        if self.config.distribution == "categorical":
            return torch.softmax(scores, dim=-1) @ self._support
        return scores.mean(dim=-1)

    def _autocast(self) -> Any:
        if self._mixed_precision:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()
