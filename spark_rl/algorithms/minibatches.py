"""A batch as tensors on the learner's device, and its epochs of shuffled minibatches. N rows, n of a minibatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spark_rl.algorithms.sequences import Sequences
from spark_rl.losses.policy_gradient import normalize_advantage
from spark_rl.policies.networks import Memory


@dataclass(slots=True)
class Rows:
    """Rows on the device."""

    features: Tensor  # float32 [N, F]
    images: list[Tensor]  # uint8 [N, *shape] each
    target_action: Tensor  # what log_prob is taken of, [N, D]
    log_prob: Tensor  # float32 [N], of the policy that acted
    advantage: Tensor  # float32 [N]
    value: Tensor  # float32 [N], before the update
    value_target: Tensor  # float32 [N]
    mask: Tensor | None = None  # bool [N, P], the choices that are allowed
    sequences: Sequences | None = None  # of a recurrent policy: minibatches then hold whole sequences
    memory: Memory | None = None  # of a minibatch of sequences

    def shuffled(self, rng: np.random.Generator, size: int, *, normalize: bool) -> Epoch:
        """One epoch: all rows in random order, in as few minibatches as `size` rows at most allow.

        Single rows make minibatches that are all equally long; rows that do not fill one (fewer than their number,
        others in every epoch) are left out. With `normalize`, advantages are normalised within each minibatch.
        """
        memories: list[Memory] = []
        if self.sequences is not None:
            order, sizes, memories = self.sequences.draw(rng, size)
        else:
            num_rows = len(self.log_prob)
            num_parts = -(-num_rows // size)
            sizes = [num_rows // num_parts] * num_parts
            order = rng.permutation(num_rows)[: sum(sizes)]
        return Epoch(self, torch.from_numpy(order).to(self.log_prob.device), sizes, memories, normalize=normalize)


class Epoch:
    """Shuffled rows; the columns hold all minibatches, one after the other.

    Everything but the images is gathered once, because a gather a minibatch costs as much as a layer.
    """

    def __init__(self, rows: Rows, order: Tensor, sizes: list[int], memories: list[Memory], *, normalize: bool) -> None:
        self._images, self._order, self._sizes, self._memories = rows.images, order, sizes, memories
        self._features, self._target_action = rows.features[order], rows.target_action[order]
        self._log_prob, self.advantage = rows.log_prob[order], rows.advantage[order]
        self.value, self.value_target = rows.value[order], rows.value_target[order]
        self._mask = None if rows.mask is None else rows.mask[order]
        if normalize and not memories:
            self.advantage = normalize_advantage(self.advantage.view(len(sizes), -1)).flatten()
        elif normalize:
            self.advantage = torch.cat([normalize_advantage(part) for part in self.advantage.split(sizes)])

    def parts(self) -> Iterator[Rows]:
        """The minibatches, [n, ...] each."""
        columns = (
            self._features, self._order, self._target_action, self._log_prob, self.advantage, self.value,
            self.value_target,
        )  # fmt: skip
        masks = None if self._mask is None else self._mask.split(self._sizes)
        pieces = zip(*(column.split(self._sizes) for column in columns), strict=True)
        for i, (features, order, target_action, log_prob, advantage, value, value_target) in enumerate(pieces):
            yield Rows(
                features=features,
                images=[image[order] for image in self._images],
                target_action=target_action,
                log_prob=log_prob,
                advantage=advantage,
                value=value,
                value_target=value_target,
                mask=None if masks is None else masks[i],
                memory=self._memories[i] if self._memories else None,
            )


def as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device; on the CPU it shares memory where it may."""
    # Arrow's zero-copy columns are read-only, which torch has no notion of: those are copied.
    return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(device)
