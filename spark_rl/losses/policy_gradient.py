"""Policy-gradient losses. N rows; every log-probability is natural and of one joint action."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_gradient(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Score-function estimate, to be minimised: [N], [N] -> []; the gradient reaches `log_prob` only.

    Its value says nothing, its gradient is minus that of the expected return.
    Source: Williams 1992; Sutton et al. 2000, "Policy gradient methods with function approximation".
    """
    return -(log_prob * advantage.detach()).mean()


def policy_gradient_slope(advantage: Tensor) -> Tensor:
    """Derivative of `policy_gradient` with respect to each log-probability: [N] -> [N]."""
    return advantage * (-1.0 / len(advantage))


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """Proximal policy optimization's pessimistic bound, to be minimised: [N], [N] -> [].

    `log_ratio` is log pi(a|s) under the learning policy minus that under the policy that acted; its gradient reaches
    the learning policy. A row whose ratio already moved further than `clip` in the direction of its advantage adds
    no gradient; one that moved the other way always does.
    Source: Schulman et al. 2017, equation 7, arXiv:1707.06347.
    """
    ratio = log_ratio.exp()
    return -torch.minimum(advantage * ratio, advantage * ratio.clamp(1.0 - clip, 1.0 + clip)).mean()


def approx_kl(log_ratio: Tensor) -> Tensor:
    """KL(acting || learning) estimated from the acting policy's samples: [N] -> [], never negative, nats.

    The k3 estimator: (ratio - 1) - log ratio; unbiased, with less variance than the mean of -log ratio.
    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html.
    """
    return (log_ratio.expm1() - log_ratio).mean()


def clip_fraction(log_ratio: Tensor, *, clip: float) -> Tensor:
    """Share of rows whose ratio left [1 - clip, 1 + clip], on either side: [N] -> [] in [0, 1]."""
    return (log_ratio.expm1().abs() > clip).to(log_ratio).mean()


def normalize_advantage(advantage: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Zero mean and unit standard deviation over the last axis, so that one step size suits every reward scale.

    [..., N] -> [..., N]. The deviation is the sample's (N - 1); with fewer than 2 rows only the mean is taken off.
    Source: a custom since Mnih & Gregor 2014, arXiv:1402.0030; the effect is in Andrychowicz et al. 2020, C.4.
    """
    centred = advantage - advantage.mean(dim=-1, keepdim=True)
    if advantage.shape[-1] < 2:
        return centred
    return centred / (advantage.std(dim=-1, keepdim=True) + eps)


def clipped_surrogate_slope(log_ratio: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """Derivative of `clipped_surrogate` with respect to each log ratio: [N], [N] -> [N]."""
    gain = log_ratio.exp()
    held = gain.clamp(1.0 - clip, 1.0 + clip).mul_(advantage)
    gain.mul_(advantage)
    return torch.where(gain <= held, gain, 0.0).mul_(-1.0 / len(gain))
