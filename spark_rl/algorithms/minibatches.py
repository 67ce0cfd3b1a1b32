"""A batch as tensors on the learner's device, and its epochs of shuffled minibatches. N rows, K minibatches of n."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spark_rl.losses.policy_gradient import normalize_advantage


@dataclass(slots=True)
class Rows:
    """Rows on the device: N of them, or K minibatches [K, n, ...], whose images are fetched by index."""

    features: Tensor  # float32 [N, F]
    images: list[Tensor]  # uint8 [N, *shape] each
    target_action: Tensor  # what log_prob is taken of, [N, D]
    log_prob: Tensor  # float32 [N], of the policy that acted
    advantage: Tensor  # float32 [N]
    value: Tensor  # float32 [N], before the update
    value_target: Tensor  # float32 [N]
    order: Tensor | None = None  # int64 [K, n], which row each one is; None before shuffling

    def shuffled(self, rng: np.random.Generator, size: int, *, normalize: bool) -> Rows:
        """One epoch: all rows in random order, in as few minibatches as `size` rows at most allow, all equally long.

        Rows that do not fill a minibatch (fewer than their number, others in every epoch) are left out. Everything
        but the images is gathered once, because a gather a minibatch costs as much as a layer.
        """
        num_rows = len(self.log_prob)
        num_parts = -(-num_rows // size)
        length = num_rows // num_parts
        order = torch.from_numpy(rng.permutation(num_rows)[: num_parts * length]).to(self.log_prob.device)
        columns = [self.features, self.target_action, self.log_prob, self.advantage, self.value, self.value_target]
        features, target_action, log_prob, advantage, value, value_target = (
            column[order].view(num_parts, length, *column.shape[1:]) for column in columns
        )
        if normalize:
            advantage = normalize_advantage(advantage)
        order = order.view(num_parts, length)
        return Rows(features, self.images, target_action, log_prob, advantage, value, value_target, order)

    def parts(self) -> Iterator[Rows]:
        """The minibatches of shuffled rows, [n, ...] each."""
        assert self.order is not None, "only shuffled rows have minibatches"
        columns = [self.target_action, self.log_prob, self.advantage, self.value, self.value_target]
        for features, order, *rest in zip(
            self.features.unbind(0), self.order.unbind(0), *(column.unbind(0) for column in columns), strict=True
        ):
            yield Rows(features, [image[order] for image in self.images], *rest)


def as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device; on the CPU it shares memory where it may."""
    # Arrow's zero-copy columns are read-only, which torch has no notion of: those are copied.
    return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(device)
