"""TD3: twin critics, smoothed targets, an actor that moves less often. And DDPG, which is TD3 without the three.

Sources: Fujimoto, van Hoof & Meger 2018, arXiv:1802.09477, algorithm 1; Lillicrap et al. 2016, arXiv:1509.02971.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from spark_rl.algorithms.continuous import ContinuousConfig, ContinuousLearner, Minibatch
from spark_rl.losses.actor_critic import clipped_double_target, deterministic_actor_loss
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.towers import Towers


class TD3Config(ContinuousConfig):
    """Section [algorithm] with name = "td3". Noise is in units of actions scaled to [-1, 1]."""

    policy_kind: ClassVar[str] = "deterministic"

    name: Literal["td3", "ddpg"] = "td3"
    learning_rate: float = Field(1e-3, gt=0.0, description="Adam's step size, of actor and critics")
    exploration_noise: float = Field(0.1, gt=0.0, description="deviation of the Gaussian on acted actions")
    twin: bool = Field(True, description="two critics, of which the lower counts")
    actor_every: int = Field(2, ge=1, description="gradient steps of the critics between those of actor and targets")
    target_noise: float = Field(0.2, ge=0.0, description="deviation of the Gaussian on the targets' actions")
    target_noise_clip: float = Field(0.5, ge=0.0, description="largest size of that noise")


class DDPGConfig(TD3Config):
    """Section [algorithm] with name = "ddpg": one critic, an actor that moves at every step, plain targets."""

    name: Literal["ddpg"] = "ddpg"
    twin: bool = Field(False, description="two critics, of which the lower counts")
    actor_every: int = Field(1, ge=1, description="gradient steps of the critics between those of actor and targets")
    target_noise: float = Field(0.0, ge=0.0, description="deviation of the Gaussian on the targets' actions")


class TD3(ContinuousLearner):
    """See the module and ContinuousLearner."""

    Config: ClassVar[type[TD3Config]] = TD3Config

    def __init__(
        self,
        config: TD3Config,
        policy: PolicySpec,
        *,
        device: torch.device | str,
        seed: int,
        num_envs: int,
        mixed_precision: bool = False,
    ) -> None:
        self.config = config
        critics = 2 if config.twin else 1
        super().__init__(config, policy, outputs=1, critics=critics, device=torch.device(device), seed=seed)
        sizes = (self._window.features.size, *policy.hidden, self._box.size)
        self.target_actor = Towers(("actor",), sizes, tanh=policy.activation == "tanh", head_gain=1.0, seed=0,
                                   device=self.device)  # fmt: skip
        self.target_actor.flat.copy_(self.actor.flat)

    def weights(self) -> dict[str, np.ndarray]:
        """See ContinuousLearner."""
        return super().weights() | {"explore.noise": np.asarray(self.config.exploration_noise)}

    def state_dict(self) -> dict[str, Any]:
        """See ContinuousLearner."""
        return super().state_dict() | {f"target.{name}": w for name, w in self.target_actor.weights().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ContinuousLearner."""
        super().load_state_dict(state)
        self.target_actor.load_weights(
            {name.removeprefix("target."): w for name, w in state.items() if name.startswith("target.actor.")}
        )

    def _step(self, part: Minibatch, step: int) -> dict[str, Tensor]:
        """See ContinuousLearner: critics at every step, then sometimes the actor, and with it the targets."""
        config = self.config
        noise = (part.noise[0] * config.target_noise).clamp_(-config.target_noise_clip, config.target_noise_clip)
        next_action = (self.target_actor(part.next_features)[0].tanh() + noise).clamp_(-1.0, 1.0)
        next_value = self._judge(part.next_features, next_action, self.target)
        facts = self._learn_critics(part, clipped_double_target(part.reward, part.bootstrap, next_value))
        if (step + 1) % config.actor_every:
            return facts
        with torch.enable_grad():
            action = self.actor(part.features, learn=True)[0].tanh()
            loss = deterministic_actor_loss(self._judge(part.features, action, self.critics, learn=True))
        self._optimizers["actor"].step(self.actor.gradient(loss), learning_rate=config.learning_rate)
        self._follow()
        self.target_actor.flat.lerp_(self.actor.flat, config.target_share)
        return facts | {"actor_loss": loss.detach()}

    def _actor_steps(self, first: int, num_steps: int) -> int:
        """See ContinuousLearner."""
        every = self.config.actor_every
        return (first + num_steps) // every - first // every


class DDPG(TD3):
    """See the module."""

    Config = DDPGConfig
