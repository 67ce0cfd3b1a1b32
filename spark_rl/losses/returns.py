"""Targets for value functions and policies.

T env steps, B fragments (one an environment). Every tensor is time-major, oldest step first.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    lam: float,
) -> Tensor:
    """Generalized advantage estimates over fixed-length fragments.

    Every tensor is [T, B], oldest step first. `next_value` is V of the true successor, before any reset, so it
    counts after a time limit (`truncated`) and is ignored after a real end (`terminated`). Nothing after an end of
    either kind leaks back over it. The last step of a fragment bootstraps from its `next_value`. Rewards keep the
    scale they come in. The result carries no gradient.

    Raises ValueError naming the first tensor whose shape differs from `reward`.
    Source: Schulman et al. 2016, arXiv:1506.02438; time limits after Pardo et al. 2018, arXiv:1712.00378.
    """
    _same_shape(reward, value=value, next_value=next_value, terminated=terminated, truncated=truncated)
    with torch.no_grad():
        # A Python float times a bool tensor is float32 even where rewards are float64: convert the mask, not the sum.
        delta = reward + discount * (~terminated).to(reward) * next_value - value
        carry = discount * lam * (~(terminated | truncated)).to(reward)
        advantage = torch.empty_like(delta)
        running = torch.zeros_like(delta[0])
        for t in range(len(delta) - 1, -1, -1):
            running = delta[t] + carry[t] * running
            advantage[t] = running
    return advantage


def discounted_returns(
    reward: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, *, discount: float
) -> Tensor:
    """Discounted sums of rewards to the end of the episode, bootstrapped where it goes on elsewhere.

    Every tensor is [T, B]. After `terminated` nothing follows; at `truncated`, and at the last step of the fragment,
    `next_value` (V of the true successor) stands for the rest. The result carries no gradient.

    Raises ValueError naming the first tensor whose shape differs from `reward`.
    Source: Sutton & Barto 2018, section 3.3; time limits after Pardo et al. 2018, arXiv:1712.00378.
    """
    _same_shape(reward, next_value=next_value, terminated=terminated, truncated=truncated)
    with torch.no_grad():
        goes_on = (~terminated).to(reward)
        result = torch.empty_like(reward)
        running = next_value[-1]
        for t in range(len(reward) - 1, -1, -1):
            running = reward[t] + discount * goes_on[t] * torch.where(truncated[t], next_value[t], running)
            result[t] = running
    return result


def vtrace(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    log_ratio: Tensor,
    *,
    discount: float,
    lam: float = 1.0,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Value targets and policy-gradient advantages from steps that another policy took.

    Every tensor is [T, B], as in `gae`; `log_ratio` is log pi(a|s) under the policy that learns minus that under the
    policy that acted. `rho_clip` bounds the weight of each temporal difference (and so decides which policy's value is
    learned), `c_clip` how far differences are passed back. On-policy, with clips of 1 or more and lam = 1, the targets
    are n-step returns and the advantages those less the values. The results carry no gradient.

    Raises ValueError naming the first tensor whose shape differs from `reward`.
    Source: Espeholt et al. 2018, arXiv:1802.01561, equation 1 and remark 1; lam as in remark 2.
    """
    _same_shape(
        reward, value=value, next_value=next_value, terminated=terminated, truncated=truncated, log_ratio=log_ratio
    )
    with torch.no_grad():
        goes_on = (~terminated).to(reward)
        joined = ~(terminated | truncated)
        ratio = log_ratio.exp()
        rho = ratio.clamp(max=rho_clip)
        delta = rho * (reward + discount * goes_on * next_value - value)
        carry = discount * lam * ratio.clamp(max=c_clip) * joined.to(reward)
        correction = torch.empty_like(delta)
        running = torch.zeros_like(delta[0])
        for t in range(len(delta) - 1, -1, -1):
            running = delta[t] + carry[t] * running
            correction[t] = running
        target = value + correction
        # The successor's target is the next row's, but for a fragment's last step and where the row is cut off.
        following = next_value.clone()
        following[:-1] = torch.where(joined[:-1], target[1:], next_value[:-1])
        advantage = rho * (reward + discount * goes_on * following - value)
    return target, advantage


def _same_shape(reward: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.shape != reward.shape:
            raise ValueError(f"{name} is {list(tensor.shape)}; reward is {list(reward.shape)} and all must agree")
