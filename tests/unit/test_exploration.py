"""Schedules of exploration: their ends, their middle, and the published ladder."""

from __future__ import annotations

import numpy as np
import pytest

from spark_rl.policies.exploration import apex_ladder, exponential, linear


@pytest.mark.parametrize("schedule", [linear, exponential])
def test_a_schedule_begins_at_its_start_and_stays_at_its_end(schedule) -> None:
    values = [schedule(p, start=0.8, end=0.05, fraction=0.5) for p in (0.0, 0.2, 0.4, 0.5, 0.75, 1.0)]
    assert values[0] == 0.8
    assert values[3:] == pytest.approx([0.05] * 3, abs=1e-15)
    assert values[0] > values[1] > values[2] > values[3]


def test_linear_is_half_way_at_half_the_fraction_and_exponential_at_the_geometric_mean() -> None:
    assert linear(0.25, start=1.0, end=0.01, fraction=0.5) == pytest.approx(0.505)
    assert exponential(0.25, start=1.0, end=0.01, fraction=0.5) == pytest.approx(0.1)


def test_the_ladder_is_the_papers() -> None:
    ladder = apex_ladder(0.4, 8)
    np.testing.assert_allclose(ladder, [0.4 ** (1 + 7 * i / 7) for i in range(8)], rtol=1e-15)
    assert ladder[0] == 0.4 and ladder[-1] == pytest.approx(0.4**8)
    assert apex_ladder(0.4, 1).tolist() == [0.4]
