"""Step sizes that depend on how often a pair was learned from, and what many steps at once amount to."""

from __future__ import annotations

import numpy as np

# Steps whose sizes are summed exactly; beyond, they hardly differ within one update.
_EXACT = 1 << 20


class StepSizes:
    """alpha_k = first / (1 + (k - 1) / visits) ** power, for the k-th step of a pair, from 1.

    power 0 is a constant; first 1, power 1 and visits 1 make the running mean, 1 / k; visits H + 1 make
    (H + 1) / (H + k). Sources: Even-Dar and Mansour 2003 (polynomial rates, best near 0.77), Jin et al. 2018.
    """

    def __init__(self, *, first: float, power: float, visits: float) -> None:
        self._first, self._power, self._visits = first, power, visits
        self._log_kept = np.zeros(1)  # of step k and all before it: log prod (1 - alpha_j), j <= k

    def size(self, k: np.ndarray) -> np.ndarray:
        """alpha_k; k is [...], from 1."""
        return np.asarray(self._first / (1.0 + (k - 1) / self._visits) ** self._power)

    def fraction(self, before: np.ndarray, num: np.ndarray) -> np.ndarray:
        """How far `num` steps towards one target go at once, after `before` steps: 1 - prod (1 - alpha_k). [...] each.

        With it, one update with the mean of n targets weighs as much as n updates with one target each.
        """
        last = before + num
        top = int(min(last.max(initial=0), _EXACT))
        if top >= len(self._log_kept):
            k = np.arange(1, min(2 * top, _EXACT) + 1)
            sizes = self.size(k)
            # A first step of 1 forgets all that was before; the rest of the sum must stay finite.
            self._log_kept = np.concatenate([[0.0], np.cumsum(np.log1p(-np.where(sizes < 1.0, sizes, 0.0)))])
        exact = self._log_kept[np.minimum(last, _EXACT - 1)] - self._log_kept[np.minimum(before, _EXACT - 1)]
        beyond = num * np.log1p(-np.minimum(self.size(before + 0.5 * num + 0.5), 1.0 - 1e-16))
        fraction = -np.expm1(np.where(last < _EXACT, exact, beyond))
        forgets = self.size(before + 1) >= 1.0
        return np.where(forgets & (num > 0), 1.0, fraction)
