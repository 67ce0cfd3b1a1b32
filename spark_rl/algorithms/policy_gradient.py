"""One gradient step an iteration on all of its rows: what A2C, REINFORCE and IMPALA share. N rows."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from spark_rl.algorithms.actor_critic import ActorCritic
from spark_rl.algorithms.minibatches import Rows
from spark_rl.algorithms.policy_gradient_config import PolicyGradientConfig
from spark_rl.algorithms.ppo_config import scheduled
from spark_rl.losses.policy_gradient import approx_kl, policy_gradient, policy_gradient_slope
from spark_rl.losses.value import mean_squared_error, mean_squared_error_slope
from spark_rl.policies.networks import Slopes


class PolicyGradient(ActorCritic):
    """Learns with `advantage` as `targets` gives it: one step down -log pi(a|s) * advantage."""

    config: PolicyGradientConfig

    @property
    def normalizes(self) -> bool:
        """Whether advantages are still to be normalised when `targets` has given them."""
        return self.config.normalize_advantage

    def learn(self, rows: Rows, rng: np.random.Generator, progress: float) -> dict[str, float]:
        """loss = policy gradient + value_coef * value loss - entropy_coef * mean entropy, over all rows at once."""
        config = self.config
        learning_rate = scheduled(config.learning_rate, config.learning_rate_schedule, progress)
        # Sequences take their own order; single rows need none, yet one way for both is worth one gather.
        epoch = rows.shuffled(rng, len(rows.log_prob) * config.sequence_length, normalize=self.normalizes)
        (part,) = epoch.parts()
        output = self.forward(part)
        params = self.allowed(output, part).detach()
        actions = self.family(params, output.log_std)
        log_prob = actions.log_prob(part.target_action)
        slope, log_std = actions.slopes(
            part.target_action, policy_gradient_slope(part.advantage), -config.entropy_coef / len(log_prob)
        )
        value = output.value.detach()
        value_slope = mean_squared_error_slope(value, part.value_target).mul_(config.value_coef)
        gradient = self.network.backward(output, Slopes(slope, log_std, value_slope))
        norm: Tensor = self.descend(gradient, learning_rate=learning_rate)
        return {
            "learner/policy_loss": policy_gradient(log_prob, part.advantage).item(),
            "learner/value_loss": mean_squared_error(value, part.value_target).item(),
            "learner/entropy": actions.entropy().mean().item(),
            "learner/approx_kl": approx_kl(log_prob - part.log_prob).item(),
            "learner/learning_rate": learning_rate,
            "learner/gradient_norm": norm.item(),
            "learner/gradient_steps": 1.0,
        }
