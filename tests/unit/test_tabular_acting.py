"""Acting from a table: states are numbered one to one, and what is drawn has the probability that is recorded."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from spark_rl.envs.spaces import action_spec, observation_spec
from spark_rl.errors import UserError
from spark_rl.policies import weights as codec
from spark_rl.policies.acting import in_group
from spark_rl.policies.load import load_acting
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.states import StateIndex
from spark_rl.policies.tabular import behaviour

MIXED = gym.spaces.Dict(
    a=gym.spaces.Discrete(3, start=-1), b=gym.spaces.MultiDiscrete([2, 4]), c=gym.spaces.MultiBinary(2)
)


def spec(states: int = 3, actions: int = 4, start: int = 0) -> PolicySpec:
    return PolicySpec(observation=observation_spec(gym.spaces.Discrete(states), "test"), kind="tabular",
                      action=action_spec(gym.spaces.Discrete(actions, start=start), "test"))  # fmt: skip


def test_every_observation_of_a_nested_space_has_its_own_state() -> None:
    states = StateIndex(observation_spec(MIXED, "test"))
    assert states.size == 3 * 2 * 4 * 4
    everything = np.arange(states.size)
    np.testing.assert_array_equal(states.index(states.observation(everything)), everything)
    seen = states.observation(everything)
    assert seen["a"].min() == -1 and seen["b"].shape == (96, 2) and seen["c"].dtype == np.int8


def test_a_box_is_refused() -> None:
    with pytest.raises(UserError, match="is a box"):
        StateIndex(observation_spec(gym.spaces.Box(0, 1, (2,)), "test"))


# What one state's four values [1, 3, 3, 0] and visits [1, 4, 2, 0] give, worked out by hand.
SOFTMAX = np.exp([-2.0, 0, 0, -3]) / np.exp([-2.0, 0, 0, -3]).sum()


@pytest.mark.parametrize(
    ("explore", "wanted"),
    [
        ({}, [0, 0.5, 0.5, 0]),
        ({"explore.epsilon": 0.2}, [0.05, 0.45, 0.45, 0.05]),
        ({"explore.temperature": 1.0}, SOFTMAX),
        ({"explore.temperature": 1.0, "explore.epsilon": 0.5}, 0.5 * SOFTMAX + [0, 0.25, 0.25, 0]),
        ({"explore.ucb": 0.1}, [0, 0, 0, 1]),
        ({"explore.ucb": 0.0}, [0, 0, 0, 1]),
        ({"explore.ucb": 0.1, "explore.epsilon": 1.0}, [0.25] * 4),
    ],
)
def test_behaviour_probabilities(explore, wanted) -> None:
    value, count = np.array([[1.0, 3, 3, 0]]), np.array([[1, 4, 2, 0]])
    explore = {name: np.array(v) for name, v in explore.items()}
    np.testing.assert_allclose(behaviour(value, count, explore)[0], wanted, atol=1e-15)


def test_ucb_follows_the_formula_once_everything_was_tried() -> None:
    value, count = np.array([[1.0, 0.9]]), np.array([[90, 10]])
    bonus = np.sqrt(np.log(101) / count)
    for c in (0.1, 1.0):
        chosen = behaviour(value, count, {"explore.ucb": np.array(c)})[0].argmax()
        assert chosen == (value + c * bonus)[0].argmax()


def test_actions_are_drawn_with_the_recorded_probability() -> None:
    q = np.array([[0.0, 1, 0, 0], [2, 2, 0, 0], [0, 0, 0, 5]])
    policy = load_acting(spec(start=7), codec.encode({"q": q, "explore.epsilon": np.array(0.4)}))
    observation = {"": np.repeat([0, 1, 2], 20_000)}
    act = policy.act(observation, None, np.random.default_rng(0))
    wanted = behaviour(q, None, {"explore.epsilon": np.array(0.4)})
    for s in range(3):
        drawn = act.action[observation[""] == s] - 7
        share = np.bincount(drawn, minlength=4) / 20_000
        np.testing.assert_allclose(share, wanted[s], atol=4 * 0.5 / np.sqrt(20_000))
        np.testing.assert_allclose(np.exp(act.log_prob[observation[""] == s]), wanted[s][drawn], rtol=1e-6)
    greedy = policy.act_greedy({"": np.arange(3)}, None)
    assert greedy.action.tolist() == [8, 7, 10]


def test_groups_explore_by_apex_ladder() -> None:
    tensors = {"q": np.zeros((3, 4)), "explore.epsilon": np.array(0.4), "explore.ladder": np.array(7.0)}
    tensors["q"][:, 2] = 1.0
    policy = load_acting(spec(), codec.encode(tensors))
    chances = []
    for group in range(3):
        log_prob = in_group(policy, group, 3).act_greedy({"": np.array([0])}, None).log_prob[0]
        chances.append((1 - np.exp(log_prob)) * 4 / 3)
    np.testing.assert_allclose(chances, [0.4, 0.4**4.5, 0.4**8], rtol=1e-3)
    plain = load_acting(spec(), codec.encode({"q": np.zeros((3, 4))}))
    assert in_group(plain, 1, 3) is plain
