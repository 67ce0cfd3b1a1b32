"""Targets and losses of action values, plain and distributional, with the losses' slopes in closed form.

N rows, A actions, K atoms (of a categorical distribution) or quantiles. A target is `reward + bootstrap * value`, where
`bootstrap` holds the discount to the power of the steps taken, and 0 after a real end (never after a time limit); see
`data.replay`. `weight` [N] are importance weights, ones where rows were drawn uniformly. A slope is the derivative of
the mean loss, a number, with respect to the thing it is named after.
"""

from __future__ import annotations

import torch
from torch import Tensor


def of_action(values: Tensor, action: Tensor) -> Tensor:
    """Every row's values of its own action: [N, A, ...], int64 [N] -> [N, ...]."""
    return values[torch.arange(len(values), device=values.device), action]


def td_target(reward: Tensor, bootstrap: Tensor, next_value: Tensor) -> Tensor:
    """What a value should have been: 3 x [N] -> [N]. Source: Mnih et al. 2015, equation 2."""
    return reward + bootstrap * next_value


def huber_loss(value: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the Huber loss with threshold 1: 3 x [N] -> []; the gradient reaches `value` only.

    Squared up to an error of 1, linear beyond: Mnih et al. 2015 clip the error's slope to [-1, 1].
    Raises ValueError when the shapes differ.
    """
    if not value.shape == target.shape == weight.shape:
        raise ValueError(f"value is {list(value.shape)}, target {list(target.shape)}, weight {list(weight.shape)}")
    error = (value - target.detach()).abs()
    return (weight * torch.where(error <= 1.0, 0.5 * error.square(), error - 0.5)).mean()


def huber_slope(value: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Derivative of `huber_loss` with respect to each value: 3 x [N] -> [N]."""
    return (value - target).clamp_(-1.0, 1.0).mul_(weight).div_(len(value))


def project(reward: Tensor, bootstrap: Tensor, next_prob: Tensor, support: Tensor) -> Tensor:
    """A return's distribution moved by a Bellman step and put back on the atoms: [N], [N], [N, K], [K] -> [N, K].

    `support` holds K >= 2 equally spaced returns, ascending. The mass of each moved atom is shared between its two
    neighbours in proportion to nearness; what lands outside goes to the outermost atom. Rows sum to 1 as before.
    Source: Bellemare, Dabney & Munos 2017, algorithm 1, arXiv:1707.06887.
    """
    num_atoms = len(support)
    gap = (support[-1] - support[0]) / (num_atoms - 1)
    moved = (reward[:, None] + bootstrap[:, None] * support).clamp(support[0], support[-1])
    position = ((moved - support[0]) / gap).clamp_(0.0, num_atoms - 1.0)
    # An atom that lands on another exactly has no neighbour above: `below` stops one short of the last.
    below = position.floor().clamp_(max=num_atoms - 2.0)
    above_share = (position - below) * next_prob
    index = below.long()
    result = torch.zeros_like(next_prob)
    result.scatter_add_(1, index, next_prob - above_share)
    return result.scatter_add_(1, index + 1, above_share)


def cross_entropy(logits: Tensor, target_prob: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean cross entropy, and that of every row: [N, K], [N, K], [N] -> [], [N].

    Up to the target's own entropy this is KL(target || predicted). Source: as `project`.
    """
    row = -(target_prob.detach() * torch.log_softmax(logits, dim=1)).sum(dim=1)
    return (weight * row).mean(), row


def cross_entropy_slope(logits: Tensor, target_prob: Tensor, weight: Tensor) -> Tensor:
    """Derivative of `cross_entropy` with respect to the logits, for targets that sum to 1: [N, K]."""
    return (torch.softmax(logits, dim=1) - target_prob).mul_((weight / len(logits))[:, None])


def quantile_huber(quantile: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean quantile regression loss, and that of every row: [N, K], [N, L], [N] -> [], [N].

    The k-th of the K estimates is that of the quantile (k + 1/2) / K. Summed over estimates, averaged over the L
    target samples; Huber with threshold 1. Source: Dabney et al. 2018, equation 10, arXiv:1710.10044.
    """
    error = target.detach()[:, None, :] - quantile[:, :, None]  # [N, K, L]
    size = error.abs()
    huber = torch.where(size <= 1.0, 0.5 * error.square(), size - 0.5)
    row = (_asymmetry(error) * huber).mean(dim=2).sum(dim=1)
    return (weight * row).mean(), row


def quantile_huber_slope(quantile: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Derivative of `quantile_huber` with respect to each estimate: [N, K]."""
    error = target[:, None, :] - quantile[:, :, None]
    slope = _asymmetry(error).mul_(error.clamp(-1.0, 1.0)).mean(dim=2)
    return slope.mul_((-weight / len(quantile))[:, None])


def _asymmetry(error: Tensor) -> Tensor:
    """|tau_k - 1(error < 0)| for errors [N, K, L]: an estimate of a high quantile is pushed up more than down."""
    num = error.shape[1]
    tau = (torch.arange(num, device=error.device, dtype=error.dtype) + 0.5) / num
    return (tau[:, None] - (error < 0.0).to(error)).abs_()
