"""Proximal policy optimization: one update on one iteration's rows. N rows, M true successors at ends.

Source: Schulman et al. 2017, arXiv:1707.06347; details after Huang et al. 2022, "The 37 implementation details of
PPO". Minibatches mix rows of all environments; GAE is computed once an update.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spark_rl import seeding
from spark_rl.algorithms.adam import FlatAdam
from spark_rl.algorithms.minibatches import Rows, as_tensor
from spark_rl.algorithms.normalizers import RewardScaler, RunningMoments
from spark_rl.algorithms.ppo_config import PPOConfig, scheduled
from spark_rl.data.batch import Batch
from spark_rl.data.sequences import fragments, successor_values
from spark_rl.losses.policy_gradient import (
    approx_kl,
    clip_fraction,
    clipped_surrogate,
    clipped_surrogate_slope,
)
from spark_rl.losses.returns import gae
from spark_rl.losses.value import (
    clipped_squared_error,
    clipped_squared_error_slope,
    mean_squared_error,
    mean_squared_error_slope,
)
from spark_rl.policies.distributions import family
from spark_rl.policies.features import Normalizer
from spark_rl.policies.networks import Output, Slopes, build, features_of
from spark_rl.policies.spec import PolicySpec

VALUE_ROWS = 4096  # rows of one forward pass without gradient; bounds the memory that images take


class PPO:
    """The learner's state: network, optimizer, and the running statistics of observations and returns.

    The same seed, config and batches give the same weights to the bit, on one device type and thread count.
    """

    Config = PPOConfig

    def __init__(
        self,
        config: PPOConfig,
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
        self._features = features_of(policy)
        self._family = family(policy.action.only)
        self.network = build(policy, seed=seeding.integer(seed, seeding.INIT), device=self.device)
        self._optimizer = FlatAdam(self.network.flat, eps=config.adam_eps)
        self._moments = RunningMoments(self._features.size)
        self._scaler = RewardScaler(num_envs, discount=config.discount)

    @torch.no_grad()
    def update(self, batch: Batch, *, iteration: int, progress: float) -> dict[str, float]:
        """Learns from the rows that version `iteration` collected; returns metrics named in `metrics.NAMES`.

        `progress` in [0, 1] is the share of the run's env steps taken before this iteration; schedules follow it.
        Observations are normalised with the statistics that the acting policy had; this batch enters them after.
        """
        raw = self._features.encode(batch.observation)
        rows, facts = self._rows(batch, raw)
        rng = seeding.generator(self._seed, seeding.LEARNER, iteration)
        facts.update(self._learn(rows, rng, progress))
        if self.policy.normalize_observation:
            self._moments.merge(raw)
        return facts

    def weights(self) -> dict[str, np.ndarray]:
        """What the acting side loads: the network's parameters and, where it has one, the observation normaliser."""
        result = self.network.weights()
        if self.policy.normalize_observation:
            indicators = ~self._features.normalized
            statistics = self._moments.state()
            statistics["mean"][indicators], statistics["var"][indicators] = 0.0, 1.0
            result.update({f"normalizer.{name}": array for name, array in statistics.items()})
        return result

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that the next update depends on, as named arrays."""
        result = dict(self.network.weights())
        result.update({f"optimizer.{name}": array for name, array in self._optimizer.state().items()})
        result.update({f"observation.{name}": array for name, array in self._moments.state().items()})
        result.update({f"return.{name}": array for name, array in self._scaler.state().items()})
        return result

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; RunError where the state is that of another policy."""
        self.network.load_weights(state)
        self._optimizer.load({name: state[f"optimizer.{name}"] for name in self._optimizer.state()})
        self._moments.load({name: state[f"observation.{name}"] for name in self._moments.state()})
        self._scaler.load({name: state[f"return.{name}"] for name in self._scaler.state()})

    def _rows(self, batch: Batch, raw: np.ndarray) -> tuple[Rows, dict[str, float]]:
        """The batch as tensors on the device, with advantages and value targets."""
        final = self._features.encode(batch.final_observation)
        features = np.concatenate([raw, final])
        if self.policy.normalize_observation:
            statistics = self.weights()
            features = Normalizer(statistics["normalizer.mean"], statistics["normalizer.var"])(features)
        inputs = as_tensor(features, self.device)
        images = [
            as_tensor(np.concatenate(pair), self.device)
            for pair in zip(
                self._features.images(batch.observation), self._features.images(batch.final_observation), strict=True
            )
        ]
        value_all = self._values(inputs, images)
        value = value_all[: batch.num_rows].astype(np.float64)
        advantage = self._advantage(batch, value, value_all[batch.num_rows :].astype(np.float64))
        target = value + advantage
        spread = target.var()
        facts = {
            "learner/explained_variance": float(1.0 - advantage.var() / spread) if spread > 0.0 else 0.0,
            "learner/advantage_std": float(advantage.std()),
        }
        rows = Rows(
            features=inputs[: batch.num_rows],
            images=[image[: batch.num_rows] for image in images],
            target_action=as_tensor(self._family.target(batch.action, batch.raw_action), self.device),
            log_prob=as_tensor(batch.action_log_prob, self.device),
            advantage=as_tensor(advantage.astype(np.float32), self.device),
            value=as_tensor(value.astype(np.float32), self.device),
            value_target=as_tensor(target.astype(np.float32), self.device),
        )
        return rows, facts

    def _values(self, features: Tensor, images: list[Tensor]) -> np.ndarray:
        """V of every row before the update, float32."""
        parts = []
        with self._autocast():
            for first in range(0, len(features), VALUE_ROWS):
                chunk = slice(first, first + VALUE_ROWS)
                parts.append(self.network(features[chunk], [image[chunk] for image in images]).value)
        return torch.cat(parts).cpu().numpy()

    def _advantage(self, batch: Batch, value: np.ndarray, final_value: np.ndarray) -> np.ndarray:
        """GAE over the environments' fragments, float64 [N]."""
        layout = fragments(batch.env_index)
        last = np.zeros(batch.num_rows, bool)
        last[batch.last_row] = True
        reward = batch.reward
        if self.config.normalize_return:
            self._scaler.update(reward, batch.terminated | batch.truncated, layout)
            reward = self._scaler.scale(reward)
        next_value = successor_values(value, batch.last_row, final_value)
        # A row with its own successor is cut off from the row below it, whether by a time limit or for another reason.
        cut = last & ~batch.terminated
        columns = (reward, value, next_value, batch.terminated, cut)
        grids = [torch.from_numpy(layout.pack(column)) for column in columns]
        advantage = gae(*grids, discount=self.config.discount, lam=self.config.gae_lambda)
        return layout.unpack(advantage.numpy())

    def _learn(self, rows: Rows, rng: np.random.Generator, progress: float) -> dict[str, float]:
        """Epochs of minibatch steps. Nothing is read from the device before an epoch's end."""
        config = self.config
        learning_rate = scheduled(config.learning_rate, config.learning_rate_schedule, progress)
        clip = scheduled(config.clip, config.clip_schedule, progress)
        norms: list[Tensor] = []
        for epoch in range(config.num_epochs):  # noqa: B007 (the last one is a metric)
            outputs: list[Output] = []
            log_ratios: list[Tensor] = []
            shuffled = rows.shuffled(rng, config.minibatch_size, normalize=config.normalize_advantage)
            for part in shuffled.parts():
                with self._autocast():
                    output = self.network(part.features, part.images, learn=True)
                slopes, log_ratio = self._slopes(output, part, clip)
                gradient = self.network.backward(output, slopes)
                norm = torch.linalg.vector_norm(gradient)
                gradient.mul_((config.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
                self._optimizer.step(gradient, learning_rate=learning_rate)
                norms.append(norm)
                outputs.append(Output(output.params.detach(), None, output.value.detach()))
                log_ratios.append(log_ratio)
            log_ratio = torch.stack(log_ratios)
            kl = approx_kl(log_ratio).item() if config.target_kl > 0.0 else 0.0
            if kl > 1.5 * config.target_kl:
                break
        params = torch.cat([output.params for output in outputs])
        value = torch.stack([output.value for output in outputs])
        entropy = self._family(params, self._log_std()).entropy().mean()
        return {
            "learner/policy_loss": clipped_surrogate(log_ratio, shuffled.advantage, clip=clip).item(),
            "learner/value_loss": self._value_loss(value, shuffled).item(),
            "learner/entropy": entropy.item(),
            "learner/approx_kl": approx_kl(log_ratio).item(),
            "learner/clip_fraction": clip_fraction(log_ratio, clip=clip).item(),
            "learner/learning_rate": learning_rate,
            "learner/clip": clip,
            "learner/gradient_norm": torch.stack(norms).mean().item(),
            "learner/gradient_steps": float(len(norms)),
            "learner/epochs": float(epoch + 1),
        }

    def _slopes(self, output: Output, part: Rows, clip: float) -> tuple[Slopes, Tensor]:
        """Derivatives of the minibatch's loss at the network's output, and the log ratios [n].

        loss = clipped surrogate + value_coef * value loss - entropy_coef * mean entropy.
        """
        config = self.config
        actions = self._family(output.params, output.log_std)
        log_ratio = actions.log_prob(part.target_action) - part.log_prob
        params, log_std = actions.slopes(
            part.target_action,
            clipped_surrogate_slope(log_ratio, part.advantage, clip=clip),
            -config.entropy_coef / len(log_ratio),
        )
        if config.value_clip > 0.0:
            value = clipped_squared_error_slope(output.value, part.value_target, part.value, clip=config.value_clip)
        else:
            value = mean_squared_error_slope(output.value, part.value_target)
        return Slopes(params, log_std, value.mul_(config.value_coef)), log_ratio

    def _value_loss(self, value: Tensor, rows: Rows) -> Tensor:
        if self.config.value_clip > 0.0:
            return clipped_squared_error(value, rows.value_target, rows.value, clip=self.config.value_clip)
        return mean_squared_error(value, rows.value_target)

    def _log_std(self) -> Tensor | None:
        return self.network.views(self.network.flat).get("log_std")

    def _autocast(self) -> Any:
        if self._mixed_precision:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()
