"""Advantage actor-critic: the synchronous form of A3C, one RMSprop step an iteration.

An iteration's fragments are the n steps of n-step returns: `rollout.steps_per_env` is n.
Source: Mnih et al. 2016, arXiv:1602.01783, algorithm S3; Wu et al. 2017, "OpenAI Baselines: ACKTR & A2C".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from spark_rl.algorithms.actor_critic import Steps
from spark_rl.algorithms.policy_gradient import PolicyGradient
from spark_rl.algorithms.policy_gradient_config import A2CConfig
from spark_rl.algorithms.rmsprop import FlatRMSprop
from spark_rl.losses.returns import gae
from spark_rl.policies.spec import PolicySpec


class A2C(PolicyGradient):
    """See the module."""

    Config = A2CConfig

    def __init__(self, config: A2CConfig, policy: PolicySpec, **machine: Any) -> None:
        self.config: A2CConfig = config
        super().__init__(config, policy, **machine)

    def make_optimizer(self, flat: Tensor) -> FlatRMSprop:
        """See ActorCritic."""
        return FlatRMSprop(flat, decay=self.config.rmsprop_decay, eps=self.config.rmsprop_eps)

    def targets(self, steps: Steps) -> tuple[np.ndarray, np.ndarray]:
        """n-step returns less the values; with lambda below 1, generalized advantages."""
        columns = (steps.reward, steps.value, steps.next_value, steps.terminated, steps.cut)
        grids = [steps.grid(column) for column in columns]
        advantage = steps.rows(gae(*grids, discount=self.config.discount, lam=self.config.gae_lambda))
        return advantage, steps.value + advantage
