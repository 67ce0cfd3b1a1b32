"""Soft actor-critic: twin critics, a squashed Gaussian actor, and a temperature that keeps its entropy at a target.

Source: Haarnoja et al. 2018, arXiv:1812.05905, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from spark_rl.algorithms.adam import FlatAdam
from spark_rl.algorithms.continuous import ContinuousConfig, ContinuousLearner, Minibatch
from spark_rl.losses.actor_critic import soft_actor_loss, soft_target, temperature_loss
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.squashed import LOG_STD_RANGE
from spark_rl.policies.towers import squash


class SACConfig(ContinuousConfig):
    """Section [algorithm] with name = "sac"."""

    policy_kind: ClassVar[str] = "squashed"

    name: Literal["sac"] = "sac"
    temperature: float = Field(1.0, gt=0.0, description="alpha, reward units per nat, at the beginning")
    temperature_learned: bool = Field(True, description="off: it stays")
    target_entropy: float | None = Field(None, description="nats, of actions in [-1, 1]; unset: minus their components")


class SAC(ContinuousLearner):
    """See the module and ContinuousLearner."""

    Config = SACConfig

    def __init__(
        self,
        config: SACConfig,
        policy: PolicySpec,
        *,
        device: torch.device | str,
        seed: int,
        num_envs: int,
        mixed_precision: bool = False,
    ) -> None:
        self.config = config
        super().__init__(config, policy, outputs=2, critics=2, device=torch.device(device), seed=seed)
        self._target_entropy = float(-self._box.size) if config.target_entropy is None else config.target_entropy
        self.log_alpha = torch.full((), math.log(config.temperature), device=self.device)
        self._optimizers["temperature"] = FlatAdam(self.log_alpha, eps=config.adam_eps)

    def state_dict(self) -> dict[str, Any]:
        """See ContinuousLearner."""
        return super().state_dict() | {"log_alpha": self.log_alpha.cpu().numpy().copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ContinuousLearner."""
        super().load_state_dict(state)
        self.log_alpha.copy_(torch.as_tensor(state["log_alpha"]))

    def _step(self, part: Minibatch, step: int) -> dict[str, Tensor]:
        """See ContinuousLearner: critics, then the actor against them, then the temperature."""
        alpha = self.log_alpha.exp()
        next_action, next_log_prob = squash(self.actor(part.next_features)[0], part.noise[0], LOG_STD_RANGE)
        next_value = self._judge(part.next_features, next_action, self.target)
        facts = self._learn_critics(part, soft_target(part.reward, part.bootstrap, next_value, next_log_prob, alpha))

        with torch.enable_grad():
            action, log_prob = squash(self.actor(part.features, learn=True)[0], part.noise[1], LOG_STD_RANGE)
            loss = soft_actor_loss(self._judge(part.features, action, self.critics, learn=True), log_prob, alpha)
        self._optimizers["actor"].step(self.actor.gradient(loss), learning_rate=self.config.learning_rate)

        if self.config.temperature_learned:
            with torch.enable_grad():
                leaf = self.log_alpha.detach().requires_grad_()
                (slope,) = torch.autograd.grad(
                    temperature_loss(leaf, log_prob, target_entropy=self._target_entropy), leaf
                )
            self._optimizers["temperature"].step(slope, learning_rate=self.config.learning_rate)
        self._follow()
        return facts | {"actor_loss": loss.detach(), "entropy": -log_prob.detach().mean(), "temperature": alpha}
