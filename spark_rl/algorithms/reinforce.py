"""REINFORCE, with and without a learned baseline: one Adam step an iteration.

Source: Williams 1992, "Simple statistical gradient-following algorithms"; with baseline: Sutton & Barto 2018,
section 13.4. As nearly everywhere, the factor gamma^t of the exact discounted gradient is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spark_rl.algorithms.actor_critic import Steps
from spark_rl.algorithms.adam import FlatAdam
from spark_rl.algorithms.policy_gradient import PolicyGradient
from spark_rl.algorithms.policy_gradient_config import ReinforceConfig
from spark_rl.losses.policy_gradient import normalize_advantage
from spark_rl.losses.returns import discounted_returns
from spark_rl.policies.spec import PolicySpec


class Reinforce(PolicyGradient):
    """See the module.

    A fragment may end within an episode. With the baseline, the value of the successor stands for the rest, and so it
    does after a time limit. Without one nothing is known of the rest: rows whose episode did not end in the fragment
    do not count, and a return ends at a time limit. So fragments should then be much longer than episodes.
    """

    Config = ReinforceConfig

    def __init__(self, config: ReinforceConfig, policy: PolicySpec, **machine: Any) -> None:
        self.config: ReinforceConfig = config
        super().__init__(config, policy, **machine)

    def make_optimizer(self, flat: Tensor) -> FlatAdam:
        """See ActorCritic."""
        return FlatAdam(flat, eps=self.config.adam_eps)

    @property
    def normalizes(self) -> bool:
        """Not where only some rows count."""
        return self.config.normalize_advantage and self.config.baseline

    def targets(self, steps: Steps) -> tuple[np.ndarray, np.ndarray]:
        """Returns to the end of the episode, less the baseline."""
        discount = self.config.discount
        if self.config.baseline:
            columns = (steps.reward, steps.next_value, steps.terminated, steps.cut)
            returns = steps.rows(discounted_returns(*(steps.grid(column) for column in columns), discount=discount))
            return returns - steps.value, returns
        ended = steps.terminated | steps.truncated
        nothing = np.zeros_like(steps.reward)
        grids = [steps.grid(column) for column in (nothing, ended, steps.cut & ~ended)]
        returns = steps.rows(discounted_returns(steps.grid(steps.reward), *grids, discount=discount))
        # A reward of 1 at the end and of nothing before: its undiscounted return says whether the end was reached.
        reached = steps.rows(discounted_returns(steps.grid(ended.astype(np.float64)), *grids, discount=1.0)) > 0.0
        advantage = np.zeros_like(returns)
        advantage[reached] = returns[reached]
        if self.config.normalize_advantage and reached.any():
            advantage[reached] = normalize_advantage(torch.from_numpy(returns[reached])).numpy()
        return advantage, steps.value  # the critic has nothing to learn
