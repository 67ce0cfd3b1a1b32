"""Proximal policy optimization: one update on one iteration's rows. N rows, M true successors at ends.

Source: Schulman et al. 2017, arXiv:1707.06347; details after Huang et al. 2022, "The 37 implementation details of
PPO". Minibatches mix rows of all environments; GAE is computed once an update.
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
from spark_rl.algorithms.normalizers import RewardScaler, RunningMoments
from spark_rl.algorithms.ppo_config import PPOConfig, scheduled
from spark_rl.data.batch import Batch
from spark_rl.data.sequences import fragments, successor_values
from spark_rl.losses.policy_gradient import approx_kl, clip_fraction, clipped_surrogate, normalize_advantage
from spark_rl.losses.returns import gae
from spark_rl.losses.value import clipped_squared_error, mean_squared_error
from spark_rl.policies.distributions import distribution
from spark_rl.policies.features import Normalizer
from spark_rl.policies.networks import build, features_of
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
        self._distribution = distribution(policy.action.only)
        self.network = build(policy, seed=seeding.integer(seed, seeding.INIT), device=self.device)
        flat = self.network.flat
        self._optimizer = torch.optim.Adam([flat], lr=config.learning_rate, eps=config.adam_eps, fused=True)
        # Made now and not at the first step, so that a checkpoint always has the same names.
        self._optimizer.state[flat] = {
            "step": torch.zeros((), device=self.device),
            "exp_avg": torch.zeros_like(flat.data),
            "exp_avg_sq": torch.zeros_like(flat.data),
        }
        self._moments = RunningMoments(self._features.size)
        self._scaler = RewardScaler(num_envs, discount=config.discount)

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
        for name, tensor in self._optimizer.state[self.network.flat].items():
            result[f"optimizer.{name}"] = tensor.cpu().numpy().copy()
        result.update({f"observation.{name}": array for name, array in self._moments.state().items()})
        result.update({f"return.{name}": array for name, array in self._scaler.state().items()})
        return result

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; RunError where the state is that of another policy."""
        self.network.load_weights(state)
        for name, tensor in self._optimizer.state[self.network.flat].items():
            tensor.copy_(torch.from_numpy(np.array(state[f"optimizer.{name}"])))
        self._moments.load({name: state[f"observation.{name}"] for name in self._moments.state()})
        self._scaler.load({name: state[f"return.{name}"] for name in self._scaler.state()})

    def _rows(self, batch: Batch, raw: np.ndarray) -> tuple[_Rows, dict[str, float]]:
        """The batch as tensors on the device, with advantages and value targets."""
        final = self._features.encode(batch.final_observation)
        features = np.concatenate([raw, final])
        if self.policy.normalize_observation:
            statistics = self.weights()
            features = Normalizer(statistics["normalizer.mean"], statistics["normalizer.var"])(features)
        inputs = _tensor(features, self.device)
        images = [
            _tensor(np.concatenate(pair), self.device)
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
        rows = _Rows(
            features=inputs[: batch.num_rows],
            images=[image[: batch.num_rows] for image in images],
            target_action=_tensor(self._distribution.target(batch.action, batch.raw_action), self.device),
            log_prob=_tensor(batch.action_log_prob, self.device),
            advantage=_tensor(advantage.astype(np.float32), self.device),
            value=_tensor(value.astype(np.float32), self.device),
            value_target=_tensor(target.astype(np.float32), self.device),
        )
        return rows, facts

    def _values(self, features: Tensor, images: list[Tensor]) -> np.ndarray:
        """V of every row before the update, float32."""
        parts = []
        with torch.no_grad(), self._autocast():
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

    def _learn(self, rows: _Rows, rng: np.random.Generator, progress: float) -> dict[str, float]:
        """Epochs of minibatch steps. Nothing is read from the device before an epoch's end."""
        config = self.config
        learning_rate = scheduled(config.learning_rate, config.learning_rate_schedule, progress)
        clip = scheduled(config.clip, config.clip_schedule, progress)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        norms: list[Tensor] = []
        for epoch in range(config.num_epochs):  # noqa: B007 (the last one is a metric)
            losses, log_ratios = [], []
            for part in rows.minibatches(rng, config.minibatch_size, normalize=config.normalize_advantage):
                with self._autocast():
                    loss, terms, log_ratio = self._loss(part, clip)
                gradient = self.network.backward(loss)
                norm = torch.linalg.vector_norm(gradient)
                gradient.mul_((config.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
                self._optimizer.step()
                norms.append(norm)
                losses.append(terms)
                log_ratios.append(log_ratio)
            log_ratio = torch.cat(log_ratios)
            kl = approx_kl(log_ratio)
            if config.target_kl > 0.0 and kl.item() > 1.5 * config.target_kl:
                break
        policy_loss, value_loss, entropy = (torch.stack(term).mean().item() for term in zip(*losses, strict=True))
        return {
            "learner/policy_loss": policy_loss,
            "learner/value_loss": value_loss,
            "learner/entropy": entropy,
            "learner/approx_kl": kl.item(),
            "learner/clip_fraction": clip_fraction(log_ratio, clip=clip).item(),
            "learner/learning_rate": learning_rate,
            "learner/clip": clip,
            "learner/gradient_norm": torch.stack(norms).mean().item(),
            "learner/gradient_steps": float(len(norms)),
            "learner/epochs": float(epoch + 1),
        }

    def _loss(self, part: _Rows, clip: float) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
        """The minibatch's loss; its policy, value and entropy terms; the log ratios [n]. All but the first detached."""
        config = self.config
        output = self.network(part.features, part.images)
        log_prob, entropies = self._distribution.log_prob(output.params, output.log_std, part.target_action)
        log_ratio = log_prob - part.log_prob
        policy_loss = clipped_surrogate(log_ratio, part.advantage, clip=clip)
        if config.value_clip > 0.0:
            value_loss = clipped_squared_error(output.value, part.value_target, part.value, clip=config.value_clip)
        else:
            value_loss = mean_squared_error(output.value, part.value_target)
        entropy = entropies.mean()
        loss = policy_loss + config.value_coef * value_loss
        if config.entropy_coef > 0.0:
            loss = loss - config.entropy_coef * entropy
        return loss, (policy_loss.detach(), value_loss.detach(), entropy.detach()), log_ratio.detach()

    def _autocast(self) -> Any:
        if self._mixed_precision:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


@dataclass(slots=True)
class _Rows:
    """Rows on the device, N of them."""

    features: Tensor  # float32 [N, F]
    images: list[Tensor]  # uint8 [N, *shape] each
    target_action: Tensor  # what log_prob is taken of, [N, D]
    log_prob: Tensor  # float32 [N], of the policy that acted
    advantage: Tensor  # float32 [N]
    value: Tensor  # float32 [N], before the update
    value_target: Tensor  # float32 [N]

    def minibatches(self, rng: np.random.Generator, size: int, *, normalize: bool) -> Iterator[_Rows]:
        """One epoch: all rows in random order, as few parts as `size` rows at most allow, all equally long.

        Rows that do not fill a part (fewer than the number of parts, others in every epoch) are left out. Everything
        but the images is gathered once, because a gather a minibatch costs as much as a layer.
        """
        num_rows = len(self.log_prob)
        num_parts = -(-num_rows // size)
        length = num_rows // num_parts
        order = torch.from_numpy(rng.permutation(num_rows)[: num_parts * length]).to(self.device)
        columns = [self.features, self.target_action, self.log_prob, self.advantage, self.value, self.value_target]
        parts = [column[order].view(num_parts, length, *column.shape[1:]) for column in columns]
        if normalize:
            parts[3] = normalize_advantage(parts[3])
        picks = order.view(num_parts, length)
        for k, (features, target_action, *floats) in enumerate(zip(*(part.unbind(0) for part in parts), strict=True)):
            yield _Rows(features, [image[picks[k]] for image in self.images], target_action, *floats)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.log_prob.device


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    # Arrow's zero-copy columns are read-only, which torch has no notion of: those are copied.
    return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(device)
