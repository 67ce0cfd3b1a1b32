"""Summaries of returns, against scipy and against what an interval is for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl import metrics
from spark_rl.evaluation.statistics import bootstrap_interval, interquartile_mean, summarize

stats = pytest.importorskip("scipy.stats")
values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40).map(np.array)


@given(values)
def test_interquartile_mean_equals_scipys_trimmed_mean(sample: np.ndarray) -> None:
    assert interquartile_mean(sample) == pytest.approx(stats.trim_mean(sample, 0.25), rel=1e-9, abs=1e-6)


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean(np.array([1000.0, 1, 2, 3, 4, 5, 6, -1000])) == 3.5
    assert interquartile_mean(np.array([7.0])) == 7.0


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    sample = np.random.default_rng(0).exponential(10, 80)
    wanted = stats.bootstrap((sample,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    got = bootstrap_interval(sample, seed=0)
    np.testing.assert_allclose(got, wanted, rtol=0.02)


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(200):
        low, high = bootstrap_interval(rng.normal(3.0, 2.0, 40), seed=i, level=0.9)
        covered += low <= 3.0 <= high
    assert 165 <= covered <= 195  # 180 expected; 4 standard deviations are 17


def test_the_same_seed_gives_the_same_interval() -> None:
    sample = np.arange(20.0)
    assert bootstrap_interval(sample, seed=3) == bootstrap_interval(sample, seed=3)
    assert bootstrap_interval(sample, seed=3) != bootstrap_interval(sample, seed=4)


def test_a_summary_speaks_in_defined_names() -> None:
    row = summarize([1.0, 2.0, 6.0], [3, 4, 5], seed=0)
    metrics.check(row)
    assert (row["evaluation/return_mean"], row["evaluation/length_mean"], row["evaluation/episodes"]) == (3.0, 4.0, 3.0)
    assert row["evaluation/return_low"] <= 3.0 <= row["evaluation/return_high"]
