"""IMPALA: an actor-critic that corrects for rows of older policies by V-trace, one step an iteration.

With `rollout.pipelined` every row is exactly one policy version behind the learner.
Source: Espeholt et al. 2018, arXiv:1802.01561.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from spark_rl.algorithms.actor_critic import Steps
from spark_rl.algorithms.policy_gradient import PolicyGradient
from spark_rl.algorithms.policy_gradient_config import ImpalaConfig
from spark_rl.algorithms.rmsprop import FlatRMSprop
from spark_rl.losses.returns import vtrace
from spark_rl.policies.spec import PolicySpec


class IMPALA(PolicyGradient):
    """See the module."""

    Config = ImpalaConfig
    corrects_lag = True

    def __init__(self, config: ImpalaConfig, policy: PolicySpec, **machine: Any) -> None:
        self.config: ImpalaConfig = config
        super().__init__(config, policy, **machine)

    def make_optimizer(self, flat: Tensor) -> FlatRMSprop:
        """See ActorCritic."""
        return FlatRMSprop(flat, decay=self.config.rmsprop_decay, eps=self.config.rmsprop_eps)

    def targets(self, steps: Steps) -> tuple[np.ndarray, np.ndarray]:
        """V-trace."""
        assert steps.log_ratio is not None, "V-trace weighs rows by their ratios"
        columns = (steps.reward, steps.value, steps.next_value, steps.terminated, steps.cut, steps.log_ratio)
        target, advantage = vtrace(
            *(steps.grid(column) for column in columns), discount=self.config.discount, lam=self.config.trace_lambda,
            rho_clip=self.config.rho_clip, c_clip=self.config.c_clip,
        )  # fmt: skip
        return steps.rows(advantage), steps.rows(target)
