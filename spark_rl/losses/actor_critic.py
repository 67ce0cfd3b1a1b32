"""Targets and losses of off-policy actor-critics: SAC, TD3, DDPG.

N rows, E critics (two, or one in DDPG). `bootstrap` holds the discount to the power of the steps taken, and 0 after a
real end (never after a time limit); see `data.replay`. Log-probabilities are densities of squashed actions in [-1, 1].
"""

from __future__ import annotations

from torch import Tensor


def clipped_double_target(reward: Tensor, bootstrap: Tensor, next_value: Tensor) -> Tensor:
    """What all critics should have said: [N], [N], [E, N] -> [N], from the most pessimistic of them.

    Source: Fujimoto, van Hoof & Meger 2018, equation 10, arXiv:1802.09477.
    """
    return reward + bootstrap * next_value.amin(dim=0)


def soft_target(
    reward: Tensor, bootstrap: Tensor, next_value: Tensor, next_log_prob: Tensor, temperature: Tensor
) -> Tensor:
    """The same with the next action's entropy as part of the return: [N], [N], [E, N], [N], [] -> [N].

    Source: Haarnoja et al. 2018, equation 5 and section 6, arXiv:1812.05905.
    """
    return reward + bootstrap * (next_value.amin(dim=0) - temperature * next_log_prob)


def critics_loss(value: Tensor, target: Tensor) -> Tensor:
    """Mean squared error, summed over critics: [E, N], [N] -> []; the gradient reaches `value` only."""
    return (value - target.detach()).square().mean(dim=1).sum()


def critics_slope(value: Tensor, target: Tensor) -> Tensor:
    """Derivative of `critics_loss` with respect to each value: [E, N]."""
    return (value - target).mul_(2.0 / value.shape[1])


def soft_actor_loss(value: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Falls with the pessimistic value of the actor's actions and with its entropy: [E, N], [N], [] -> [].

    Source: Haarnoja et al. 2018, equation 9, arXiv:1812.05905.
    """
    return (temperature.detach() * log_prob - value.amin(dim=0)).mean()


def deterministic_actor_loss(value: Tensor) -> Tensor:
    """Falls with the first critic's value of the actor's actions: [E, N] -> [].

    Source: Silver et al. 2014; Fujimoto et al. 2018, algorithm 1, arXiv:1802.09477.
    """
    return -value[0].mean()


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, *, target_entropy: float) -> Tensor:
    """Falls as alpha rises while entropy is below target: [], [N] -> [].

    Source: Haarnoja et al. 2018, section 5, arXiv:1812.05905; with log alpha for alpha, as in its code.
    """
    return -(log_alpha * (log_prob.detach() + target_entropy)).mean()
