"""The replay window against a slow one of plain lists: successors, n-step chains over boundaries, draws, and recall."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spark_rl.data.batch import Batch
from spark_rl.data.replay import Replay
from spark_rl.data.sum_tree import FAN, SumTree
from spark_rl.errors import RunError
from spark_rl.schema.spaces import Leaf, SpaceSpec

OBSERVATION = SpaceSpec(
    (
        Leaf("frame", "box", "uint8", (2, 2), low=(0.0,), high=(255.0,)),
        Leaf("place", "box", "float32", (1,), low=(-1.0,), high=(1.0,)),
    ),
    structure="dict",
)
ACTION = SpaceSpec((Leaf("", "discrete", "int64", (), n=(3,), start=(0,)),))
NUM_ENVS = 3


class World:
    """Three environments that go on across iterations. Every observation is a number of its own, in both leaves."""

    def __init__(self, seed: int = 0, *, cut: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.counter = 0
        self.cut = cut  # every episode ends, unmarked, with the iteration
        self.seen = [self._next() for _ in range(NUM_ENVS)]
        self.episode, self.t = [0] * NUM_ENVS, [0] * NUM_ENVS
        self.lived: list[list[dict[str, Any]]] = []  # iteration -> rows, as a person would write them down

    def _next(self) -> int:
        self.counter += 1
        return self.counter

    def iteration(self, lengths: tuple[int, ...] = (5, 7, 6)) -> Batch:
        """The next iteration's rows."""
        rows = []
        for env, length in enumerate(lengths):
            for step in range(length):
                end = self.rng.choice(["no", "no", "no", "no", "terminated", "truncated"])
                successor = self._next()
                row = {"env": env, "seen": self.seen[env], "next": successor, "reward": self.rng.standard_normal(),
                       "action": int(self.rng.integers(3)), "end": end, "episode": 1000 * env + self.episode[env],
                       "t": self.t[env], "last": end != "no" or step == length - 1}  # fmt: skip
                rows.append(row)
                over = end != "no" or (self.cut and step == length - 1)
                self.seen[env] = self._next() if over else successor
                self.episode[env] += over
                self.t[env] = 0 if over else self.t[env] + 1
        self.lived.append(rows)
        return to_batch(rows)


def observe(numbers: list[int]) -> dict[str, np.ndarray]:
    frame = np.asarray([[[n % 256, n // 256], [7, 7]] for n in numbers], np.uint8).reshape(-1, 2, 2)
    return {"frame": frame, "place": np.asarray(numbers, np.float32)[:, None]}


def numbers(observation: dict[str, np.ndarray]) -> list[int]:
    """Inverse of `observe`; both leaves must say the same."""
    frame = observation["frame"].astype(int)
    assert_array_equal(frame[:, 0, 0] + 256 * frame[:, 0, 1], observation["place"][:, 0])
    assert observation["frame"].dtype == np.uint8
    return observation["place"][:, 0].astype(int).tolist()


def to_batch(rows: list[dict[str, Any]]) -> Batch:
    n = len(rows)
    last = [i for i, row in enumerate(rows) if row["last"]]
    return Batch(
        observation=observe([row["seen"] for row in rows]),
        action=np.asarray([row["action"] for row in rows]),
        raw_action=None,
        reward=np.asarray([row["reward"] for row in rows]),
        terminated=np.asarray([row["end"] == "terminated" for row in rows]),
        truncated=np.asarray([row["end"] == "truncated" for row in rows]),
        action_log_prob=np.zeros(n, np.float32),
        policy_version=np.zeros(n, np.int64),
        episode_id=np.asarray([row["episode"] for row in rows]),
        t=np.asarray([row["t"] for row in rows], np.int32),
        env_index=np.asarray([row["env"] for row in rows], np.int32),
        last_row=np.asarray(last),
        final_observation=observe([rows[i]["next"] for i in last]),
    )


def slow_transition(world: World, window: list[int], iteration: int, row: int, n: int, discount: float) -> tuple:
    """Seen, action, n-step reward, bootstrap factor, next: step by step along one environment's life."""
    start = world.lived[iteration][row]
    life = [r for k in window for r in world.lived[k] if r["env"] == start["env"]]
    at = next(i for i, r in enumerate(life) if r is start)
    reward, factor = 0.0, 1.0
    for step in range(n):
        here = life[at + step]
        reward += factor * here["reward"]
        factor *= discount
        following = life[at + step + 1] if at + step + 1 < len(life) else None
        if here["end"] == "terminated":
            return start["seen"], start["action"], reward, 0.0, here["next"]
        if here["end"] == "truncated" or following is None or following["episode"] != here["episode"]:
            return start["seen"], start["action"], reward, factor, here["next"]
    return start["seen"], start["action"], reward, factor, here["next"]


def compare(replay: Replay, world: World, window: list[int], n: int) -> int:
    """Every row of the window against the slow transition; how many chains crossed into another iteration."""
    assert list(replay.state()["iterations"]) == window
    place = (replay._start + np.arange(replay.num_rows)) % replay.capacity
    sample = replay.sample(place, num_steps=n, discount=0.9)
    seen, following = numbers(sample.observation), numbers(sample.next_observation)
    crossed, i = 0, 0
    for k in window:
        for row in range(len(world.lived[k])):
            want = slow_transition(world, window, k, row, n, 0.9)
            got = (seen[i], sample.action[i], sample.reward[i], sample.bootstrap[i], following[i])
            assert got[:2] == want[:2] and got[4] == want[4], (k, row)
            assert_allclose(got[2:4], want[2:4], atol=1e-12)
            crossed += following[i] not in [r["next"] for r in world.lived[k]]
            i += 1
    assert i == replay.num_rows
    return crossed


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("capacity", [18, 36, 50, 64, 200])
def test_transitions_equal_the_slow_ones(n: int, capacity: int) -> None:
    world, replay = World(), Replay(OBSERVATION, ACTION, capacity=capacity)
    ragged = [(5, 7, 6), (6, 6, 6), (1, 7, 6), (5, 7, 0), (6, 1, 7)]
    crossed = 0
    for k in range(9):
        replay.append(world.iteration(ragged[k % len(ragged)]), k)
        window = [j for j in range(k + 1) if sum(len(world.lived[i]) for i in range(j, k + 1)) <= capacity]
        crossed += compare(replay, world, window, n)
    ends = [row["end"] for rows in world.lived for row in rows]
    assert {"terminated", "truncated", "no"} == set(ends)
    assert (crossed > 0) == (n > 1 and capacity > 18), "only chains of several steps cross into the next iteration"


def test_an_episode_cut_at_the_boundary_is_not_joined_to_the_next_one() -> None:
    world, replay = World(cut=True), Replay(OBSERVATION, ACTION, capacity=200)
    for k in range(4):
        replay.append(world.iteration(), k)
        assert compare(replay, world, list(range(k + 1)), 3) == 0


@pytest.mark.parametrize("bug", ["done for terminated", "truncation ignored", "off by one", "boundary is an end"])
def test_the_slow_transitions_catch_planted_bugs(bug: str) -> None:
    world, replay = World(), Replay(OBSERVATION, ACTION, capacity=200)
    for k in range(4):
        batch = world.iteration()
        wrong: dict[str, Any] = {}
        if bug == "done for terminated":
            wrong = {"terminated": batch.terminated | batch.truncated}
        elif bug == "off by one":
            wrong = {"final_observation": {n: np.roll(v, 1, axis=0) for n, v in batch.final_observation.items()}}
        elif bug == "boundary is an end":
            wrong = {"episode_id": batch.episode_id + 100 * k}
        replay.append(dataclasses.replace(batch, **wrong), k)
    if bug == "truncation ignored":
        replay._continuation[: replay.num_rows - 1] = np.arange(1, replay.num_rows)
    with pytest.raises(AssertionError):
        compare(replay, world, list(range(4)), 3)


def test_uniform_draws_reach_every_row_of_the_window_equally_and_no_other() -> None:
    world, replay = World(), Replay(OBSERVATION, ACTION, capacity=40)
    for k in range(5):
        replay.append(world.iteration(), k)
    place = replay.draw(np.random.default_rng(0), 36_000)
    assert_array_equal(place, replay.draw(np.random.default_rng(0), 36_000))
    counts = np.bincount(place, minlength=40)
    alive = (replay._start + np.arange(replay.num_rows)) % 40
    assert replay.num_rows == 36 and counts[alive].sum() == 36_000
    assert np.abs(counts[alive] - 1000).max() < 5 * np.sqrt(1000)


def test_prioritized_draws_follow_the_priorities_and_the_weights_undo_them() -> None:
    world, replay = World(), Replay(OBSERVATION, ACTION, capacity=40, prioritized=True)
    for k in range(3):
        replay.append(world.iteration(), k)
    alive = (replay._start + np.arange(replay.num_rows)) % 40
    priority = np.random.default_rng(1).random(len(alive)) + 0.01
    replay.set_priorities(alive, priority)
    counts, weight_of, rng = np.zeros(40), np.zeros(40), np.random.default_rng(0)
    for _ in range(2000):
        place, weight = replay.draw_prioritized(rng, 32, beta=0.7)
        np.add.at(counts, place, 1.0)
        probability = replay._tree.get(place) / replay._tree.total
        want = (36 * probability) ** -0.7
        assert_allclose(weight, want / want.max(), rtol=1e-6)
        weight_of[place] = weight
    share = priority / priority.sum()
    assert np.abs(counts[alive] / 64_000 - share).max() < 5 * np.sqrt(share.max() / 64_000)
    assert counts.sum() == 64_000 and set(np.flatnonzero(counts)) <= set(alive.tolist())
    replay.append(world.iteration(), 3)  # new rows come with the largest priority there was
    assert replay._tree.get(replay.draw_prioritized(rng, 500, beta=1.0)[0]).max() == 1.01 or priority.max() < 1.0


@pytest.mark.parametrize("capacity", [1, 5, FAN, FAN + 1, 5000, 300_000])
def test_the_tree_finds_what_a_cumulative_sum_finds(capacity: int) -> None:
    rng = np.random.default_rng(capacity)
    tree, leaves = SumTree(capacity), np.zeros(capacity)
    for _ in range(5):
        index = rng.integers(0, capacity, 200)
        value = rng.integers(0, 4, 200).astype(float)  # whole numbers: both sums are exact
        tree.set(index, value)
        for i, v in zip(index, value, strict=True):
            leaves[i] = v
        if leaves.sum() == 0.0:
            continue
        assert tree.total == leaves.sum()
        mass = np.append(rng.random(300) * leaves.sum(), [0.0, np.nextafter(leaves.sum(), 0.0)])
        assert_array_equal(tree.find(mass), np.searchsorted(np.cumsum(leaves), mass, side="right"))


def test_the_tree_never_finds_a_zero_however_its_sums_are_rounded() -> None:
    rng = np.random.default_rng(0)
    tree, leaves = SumTree(10_000), np.zeros(10_000)
    some = rng.choice(10_000, 3000, replace=False)
    leaves[some] = 10.0 ** rng.uniform(-12, 3, 3000)
    tree.set(some, leaves[some])
    found = tree.find(np.append(rng.random(100_000), 1.0) * tree.total)
    assert (leaves[found] > 0.0).all()


def test_a_trees_sums_depend_on_its_leaves_and_not_on_their_history() -> None:
    rng = np.random.default_rng(0)
    lived, rebuilt = SumTree(20_000), SumTree(20_000)
    for _ in range(200):
        lived.set(rng.integers(0, 20_000, int(rng.integers(1, 300))), rng.random())
    rebuilt.set(np.arange(20_000), lived.get(np.arange(20_000)))
    for one, other in zip(lived._levels, rebuilt._levels, strict=True):
        assert_array_equal(one, other)


def rebuilt_from(replay: Replay, world: World, *, capacity: int, prioritized: bool) -> Replay:
    again = Replay(OBSERVATION, ACTION, capacity=capacity, prioritized=prioritized)
    again.load(replay.state())
    for k in again.to_recall:
        again.recall(to_batch(world.lived[k]), k)
    return again


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_rebuilt_window_goes_on_to_the_bit(prioritized: bool) -> None:
    world, replay = World(), Replay(OBSERVATION, ACTION, capacity=50, prioritized=prioritized)

    def use(some: Replay, seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        place, weight = some.draw(rng, 9), np.ones(9, np.float32)
        if prioritized:
            place, weight = some.draw_prioritized(rng, 9, beta=0.5)
            some.set_priorities(place, rng.random(9) + 0.1)
        got = some.sample(place, num_steps=3, discount=0.9)
        return [place, weight, got.reward, got.bootstrap, *got.observation.values(), *got.next_observation.values()]

    for k in range(5):
        replay.append(world.iteration(), k)
        use(replay, k)
    again = rebuilt_from(replay, world, capacity=50, prioritized=prioritized)
    for k in range(5, 9):
        batch = world.iteration()
        for some in (replay, again):
            some.append(batch, k)
        compare(again, world, again.state()["iterations"], 3)
        for one, other in zip(use(replay, k), use(again, k), strict=True):
            assert_array_equal(one, other)


def test_recall_takes_the_same_rows_in_order_and_nothing_else() -> None:
    world, replay = World(), Replay(OBSERVATION, ACTION, capacity=40)
    for k in range(3):
        replay.append(world.iteration(), k)
    again = Replay(OBSERVATION, ACTION, capacity=40)
    again.load(replay.state())
    assert again.to_recall == [1, 2]
    with pytest.raises(RunError, match="iteration 1 first"):
        again.append(world.iteration(), 3)
    with pytest.raises(RunError, match="iteration 2 with 18 rows"):
        again.recall(to_batch(world.lived[2]), 2)
    with pytest.raises(RunError, match="iteration 1 with 17 rows"):
        again.recall(to_batch(world.lived[1][:-1]), 1)


def test_an_iteration_larger_than_the_capacity_is_refused() -> None:
    with pytest.raises(RunError, match="18 rows in iteration 0; wanted at most 17; raise algorithm.replay_capacity"):
        Replay(OBSERVATION, ACTION, capacity=17).append(World().iteration(), 0)
