"""How much a policy explores, as pure functions of where the run stands. numpy only: executors use them too."""

from __future__ import annotations

import numpy as np


def linear(progress: float, *, start: float, end: float, fraction: float) -> float:
    """From `start` in a straight line to `end`, reached at `fraction` of the run and held from there on.

    `progress` and `fraction` are shares of the run, in [0, 1] and (0, 1].
    """
    return start + (end - start) * min(1.0, progress / fraction)


def exponential(progress: float, *, start: float, end: float, fraction: float) -> float:
    """From `start` to `end` by the same factor for every equal piece of the run; both must be positive.

    `progress` and `fraction` are as in `linear`.
    """
    return start * float((end / start) ** min(1.0, progress / fraction))


def apex_ladder(epsilon: float, num_groups: int, *, alpha: float = 7.0) -> np.ndarray:
    """One epsilon a group, float64 [num_groups]: epsilon^(1 + alpha * i / (num_groups - 1)), from `epsilon` downwards.

    A lone group gets `epsilon` itself. Source: Horgan et al. 2018, arXiv:1803.00933, section 4.1 (0.4 and 7).
    """
    steps = np.arange(num_groups) / max(1, num_groups - 1)
    return np.asarray(epsilon ** (1.0 + alpha * steps))
