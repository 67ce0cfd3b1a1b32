"""Action distributions on the learner's side, in torch, with their slopes in closed form.

A slope is the derivative of the loss, a number, with respect to the thing it is named after. Autograd gives the same
(tests hold every slope to it, and every log-probability to the numpy twins in `sampling`, which draw the samples),
but on a minibatch of a few hundred rows it costs three times as much. N rows, P distribution parameters a row,
D action components.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spark_rl.policies.sampling import LOG_SQRT_2PI, MASKED
from spark_rl.schema.spaces import Leaf


def masked(params: Tensor, mask: Tensor) -> Tensor:
    """Parameters [N, P] under which choices that `mask` [N, P] does not allow have probability 0.

    Their slopes are then 0 as well, so the slopes of the result are those of `params`.
    Source: Huang & Ontañón 2020, arXiv:2006.14171.
    """
    return params.masked_fill(~mask, float(MASKED))


class Distribution(Protocol):
    """The distributions of N rows' actions."""

    def log_prob(self, target: Tensor) -> Tensor:
        """Log-probability of the joint action, [N]; the target comes from `Family.target`."""

    def entropy(self) -> Tensor:
        """[N], nats; differential entropy for box actions."""

    def slopes(self, target: Tensor, log_prob_slope: Tensor, entropy_slope: float) -> tuple[Tensor, Tensor | None]:
        """Slopes of the parameters [N, P] and of log_std [D] (None where there is none).

        `log_prob_slope` [N] is that of every row's log-probability, `entropy_slope` that of any one row's entropy.
        """


class Family(Protocol):
    """The distributions that an action space calls for."""

    num_params: int  # P, outputs of the policy head

    def target(self, action: np.ndarray, raw_action: np.ndarray | None) -> np.ndarray:
        """Stored actions as `log_prob` wants them, made once an update: [N, D]."""

    def __call__(self, params: Tensor, log_std: Tensor | None) -> Distribution:
        """The distributions with parameters [N, P]; `log_std` [D] belongs to box actions."""


def family(leaf: Leaf) -> Family:
    """The distribution family for an action space."""
    return GaussianFamily(leaf) if leaf.kind == "box" else CategoricalFamily(leaf)


class CategoricalFamily:
    """D independent choices, the d-th of n[d], from unnormalised log-probabilities one after the other."""

    def __init__(self, leaf: Leaf) -> None:
        self._n = list(leaf.n)
        self.num_params = sum(leaf.n)
        # From a component's value to its column among all components' parameters.
        first = np.asarray([0, *accumulate(leaf.n[:-1])], np.int64)
        self._shift = first - np.asarray(leaf.start or (0,) * len(leaf.n), np.int64)

    def target(self, action: np.ndarray, raw_action: np.ndarray | None) -> np.ndarray:
        """The chosen columns, int64 [N, D]."""
        columns: np.ndarray = action.reshape(len(action), -1).astype(np.int64) + self._shift
        return columns

    def __call__(self, params: Tensor, log_std: Tensor | None) -> Categorical:
        """See Family."""
        if len(self._n) == 1:
            return Categorical(torch.log_softmax(params, dim=1), self._n)
        parts = [torch.log_softmax(logits, dim=1) for logits in params.split(self._n, dim=1)]
        return Categorical(torch.cat(parts, dim=1), self._n)


class Categorical:
    """See Distribution."""

    def __init__(self, log_probs: Tensor, n: list[int]) -> None:
        self._log_probs, self._n = log_probs, n  # [N, P], normalised component by component

    def log_prob(self, target: Tensor) -> Tensor:
        """See Distribution."""
        return self._log_probs.gather(1, target).sum(dim=1)

    def entropy(self) -> Tensor:
        """See Distribution."""
        return -(self._log_probs.exp() * self._log_probs).sum(dim=1)

    def slopes(self, target: Tensor, log_prob_slope: Tensor, entropy_slope: float) -> tuple[Tensor, None]:
        """d log p(a) = onehot(a) - p, and dH = -p (log p + H), with respect to the logits."""
        slope = log_prob_slope.unsqueeze(1)
        probs = self._log_probs.exp()
        result = probs * -slope
        result.scatter_add_(1, target, slope.expand(target.shape))
        if entropy_slope != 0.0:
            pieces = [tensor.split(self._n, dim=1) for tensor in (result, probs, self._log_probs)]
            for out, p, log_p in zip(*pieces, strict=True):
                entropy = -(p * log_p).sum(dim=1, keepdim=True)
                out.addcmul_(p, log_p + entropy, value=-entropy_slope)
        return result, None


class GaussianFamily:
    """D independent normals; the parameters are their means, the deviation does not depend on the state."""

    def __init__(self, leaf: Leaf) -> None:
        self.num_params = leaf.size

    def target(self, action: np.ndarray, raw_action: np.ndarray | None) -> np.ndarray:
        """The samples before clipping, float32 [N, D]; the actions themselves where no raw ones were stored."""
        source = action if raw_action is None else raw_action
        return source.reshape(len(source), -1).astype(np.float32, copy=False)

    def __call__(self, params: Tensor, log_std: Tensor | None) -> Gaussian:
        """See Family."""
        assert log_std is not None, "a Gaussian policy has a log_std"
        return Gaussian(params, log_std)


class Gaussian:
    """See Distribution."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self._mean, self._log_std = mean, log_std
        self._log_norm = log_std.sum() + len(log_std) * LOG_SQRT_2PI
        self._precision = (-log_std).exp()

    def log_prob(self, target: Tensor) -> Tensor:
        """See Distribution."""
        return ((target - self._mean) * self._precision).square().sum(dim=1).mul(-0.5) - self._log_norm

    def entropy(self) -> Tensor:
        """See Distribution."""
        return (self._log_norm + 0.5 * len(self._log_std)).expand(len(self._mean))

    def slopes(self, target: Tensor, log_prob_slope: Tensor, entropy_slope: float) -> tuple[Tensor, Tensor]:
        """With z = (a - mean) / std: z / std with respect to the mean, z^2 - 1 to log std; entropy's is 1 a row."""
        slope = log_prob_slope.unsqueeze(1)
        scaled = (target - self._mean) * self._precision
        log_std = ((scaled.square() - 1.0) * slope).sum(dim=0) + entropy_slope * len(target)
        return scaled * self._precision * slope, log_std
