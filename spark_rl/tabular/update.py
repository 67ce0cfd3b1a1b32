"""One update of a table from counted transitions: targets, their means, one step. S states, A actions, U transitions.

All four methods are one function of what stands at the successor:
  q_learning          the best value there                                            (Watkins 1989)
  sarsa               the value of what was done there; its expectation where unknown (Rummery and Niranjan 1994)
  expected_sarsa      the expectation over the behaviour policy                       (van Seijen et al. 2009)
  double_q_learning   the other table's value of this table's best action             (van Hasselt 2010)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spark_rl.tabular.counted import UNKNOWN, Counted
from spark_rl.tabular.steps import StepSizes

METHODS = ("q_learning", "double_q_learning", "sarsa", "expected_sarsa")

# Action values [U, A] and states [U] -> probabilities [U, A] with which the policy that acts there would act.
Behaviour = Callable[[np.ndarray, np.ndarray], np.ndarray]


def successor_value(
    method: str, value: np.ndarray, other: np.ndarray, moves: Counted, behaviour: Behaviour
) -> np.ndarray:
    """What a transition leads to, [U], before discount and ends; `value` is the table's rows at the successors, [U, A].

    `other` is those of the table that judges Double Q-learning's choice; the others do not look at it.
    """
    row = np.arange(len(value))
    if method == "q_learning":
        return np.asarray(value.max(axis=1))
    if method == "double_q_learning":
        return np.asarray(other[row, value.argmax(axis=1)])
    expected = np.asarray((behaviour(value, moves.successor) * value).sum(axis=1))
    if method == "expected_sarsa":
        return expected
    known = moves.next_action != UNKNOWN
    return np.where(known, value[row, np.where(known, moves.next_action, 0)], expected)


def one_step(
    table: np.ndarray, visits: np.ndarray, pair: np.ndarray, target: np.ndarray, count: np.ndarray, sizes: StepSizes
) -> float:
    """Move every pair that occurs towards the mean of its targets, at once; the mean size of the TD error before.

    `table` and `visits` are flat, [S * A], and change in place; `pair`, `target` and `count` are [U]. The step is what
    `count` single ones would amount to, from the number of visits of all groups together.
    """
    touched, place = np.unique(pair, return_inverse=True)
    num = np.bincount(place, count, len(touched))
    mean = np.bincount(place, count * target, len(touched)) / num
    error = mean - table[touched]
    table[touched] += sizes.fraction(visits[touched], num.astype(np.int64)) * error
    visits[touched] += num.astype(np.int64)
    return float((num * np.abs(error)).sum() / num.sum())
