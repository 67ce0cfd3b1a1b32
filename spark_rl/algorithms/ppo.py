"""Proximal policy optimization: one update on one iteration's rows. N rows, M true successors at ends.

Source: Schulman et al. 2017, arXiv:1707.06347; details after Huang et al. 2022, "The 37 implementation details of
PPO". Minibatches mix rows of all environments; GAE is computed once an update.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spark_rl.algorithms.actor_critic import ActorCritic, Steps
from spark_rl.algorithms.adam import FlatAdam
from spark_rl.algorithms.minibatches import Epoch, Rows
from spark_rl.algorithms.ppo_config import PPOConfig, scheduled
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
from spark_rl.policies.networks import Output, Slopes
from spark_rl.policies.spec import PolicySpec


class PPO(ActorCritic):
    """Epochs of clipped surrogate steps."""

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
        self.config = config
        super().__init__(config, policy, device=device, seed=seed, num_envs=num_envs, mixed_precision=mixed_precision)

    def make_optimizer(self, flat: Tensor) -> FlatAdam:
        """See ActorCritic."""
        return FlatAdam(flat, eps=self.config.adam_eps)

    def targets(self, steps: Steps) -> tuple[np.ndarray, np.ndarray]:
        """Generalized advantages, and returns of the same lambda."""
        columns = (steps.reward, steps.value, steps.next_value, steps.terminated, steps.cut)
        grids = [steps.grid(column) for column in columns]
        advantage = steps.rows(gae(*grids, discount=self.config.discount, lam=self.config.gae_lambda))
        return advantage, steps.value + advantage

    def learn(self, rows: Rows, rng: np.random.Generator, progress: float) -> dict[str, float]:
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
                output = self.forward(part)
                params = self.allowed(output, part).detach()
                slopes, log_ratio = self._slopes(params, output, part, clip)
                norms.append(self.descend(self.network.backward(output, slopes), learning_rate=learning_rate))
                outputs.append(Output(params, None, output.value.detach()))
                log_ratios.append(log_ratio)
            log_ratio = torch.cat(log_ratios)
            kl = approx_kl(log_ratio).item() if config.target_kl > 0.0 else 0.0
            if kl > 1.5 * config.target_kl:
                break
        params = torch.cat([output.params for output in outputs])
        value = torch.cat([output.value for output in outputs])
        entropy = self.actions(params).entropy().mean()
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

    def _slopes(self, params: Tensor, output: Output, part: Rows, clip: float) -> tuple[Slopes, Tensor]:
        """Derivatives of the minibatch's loss at the network's output, and the log ratios [n].

        loss = clipped surrogate + value_coef * value loss - entropy_coef * mean entropy.
        """
        config = self.config
        actions = self.family(params, output.log_std)
        log_ratio = actions.log_prob(part.target_action) - part.log_prob
        slope, log_std = actions.slopes(
            part.target_action,
            clipped_surrogate_slope(log_ratio, part.advantage, clip=clip),
            -config.entropy_coef / len(log_ratio),
        )
        if config.value_clip > 0.0:
            value = clipped_squared_error_slope(output.value, part.value_target, part.value, clip=config.value_clip)
        else:
            value = mean_squared_error_slope(output.value, part.value_target)
        return Slopes(slope, log_std, value.mul_(config.value_coef)), log_ratio

    def _value_loss(self, value: Tensor, rows: Epoch) -> Tensor:
        if self.config.value_clip > 0.0:
            return clipped_squared_error(value, rows.value_target, rows.value, clip=self.config.value_clip)
        return mean_squared_error(value, rows.value_target)
