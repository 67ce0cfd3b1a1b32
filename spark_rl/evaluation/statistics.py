"""Summaries of returns with an interval, so that two numbers are not compared by eye.

Source: Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", arXiv:2108.13264 (interquartile mean,
bootstrap intervals).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Enough for two digits of a 95 % interval (Efron and Tibshirani 1993, chapter 13 asks for 1,000).
RESAMPLES = 2000


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half of [N] values; the quarters at both ends are left out, floor(N / 4) values each."""
    ordered = np.sort(values)
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def bootstrap_interval(values: np.ndarray, *, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of [N] values; the same seed gives the same interval."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def summarize(returns: Sequence[float], lengths: Sequence[int], *, seed: int) -> dict[str, float]:
    """The `evaluation/` metrics of one evaluation."""
    values = np.asarray(returns, np.float64)
    low, high = bootstrap_interval(values, seed=seed)
    return {
        "evaluation/return_mean": float(values.mean()),
        "evaluation/return_std": float(values.std()),
        "evaluation/return_iqm": interquartile_mean(values),
        "evaluation/return_low": low,
        "evaluation/return_high": high,
        "evaluation/length_mean": float(np.mean(lengths)),
        "evaluation/episodes": float(len(values)),
    }
