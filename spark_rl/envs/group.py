"""A group of environments stepped together: the unit that one task runs.

Two kinds with one face. `SyncGroup` steps single environments in turn and seeds every episode by itself, so an episode
can be replayed from its seed and its actions. `NativeGroup` drives a vector environment of any autoreset mode; its
resets draw from the vector environment's own generator, so it can be carried on by its state alone.

N environments everywhere; an observation is ``{leaf name: [N, *shape]}``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode

from spark_rl import seeding
from spark_rl.envs import state
from spark_rl.envs.make import autoreset_mode, make_native, make_single
from spark_rl.envs.spaces import action_spec, allocate, fitting, getter, observation_spec
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import RunError
from spark_rl.schema.spaces import SpaceSpec

Leaves = dict[str, np.ndarray]


@dataclass(slots=True)
class Step:
    """What one step of all environments gave.

    `final` is None where the group resets in its next step: an ended environment's true final observation is then the
    group's `observation` after this step, and its next step is a reset and no transition. Otherwise `ended` lists the
    environments that ended, ascending, and `final` their final observations [len(ended), *shape], before the reset.
    """

    reward: np.ndarray  # [N]
    terminated: np.ndarray  # bool [N]
    truncated: np.ndarray  # bool [N]
    ended: np.ndarray | None = None  # int64 [number ended]
    final: Leaves | None = None


@dataclass(slots=True)
class Carried:
    """A group's position between two tasks, as plain data. `tree` is None where the environments' state is not kept."""

    observation: Leaves
    pending: np.ndarray  # bool [N]: the next step only resets
    episode: np.ndarray  # int64 [N]: ordinal of the current episode of each environment, from 0
    tree: Any = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Group(Protocol):
    """What the rollout needs from a group."""

    observation_space: SpaceSpec
    action_space: SpaceSpec
    num_envs: int
    resets_in_next_step: bool  # gymnasium's NEXT_STEP mode
    observation: Leaves  # what to act on next
    pending: np.ndarray  # bool [N]: the next step only resets
    episode: np.ndarray  # int64 [N]: ordinal of the current episode, from 0

    def start(self, iteration: int) -> None:
        """Begin a fresh episode in every environment."""

    def step(self, action: np.ndarray) -> Step:
        """One step of every environment with actions [N, ...]."""

    def carry(self, *, with_state: bool) -> Carried:
        """The position now; `with_state` captures the environments too (raises state.NotCapturable)."""

    def resume(self, carried: Carried) -> None:
        """Go on from a position captured with its state."""

    def seeds(self) -> np.ndarray | None:
        """Reset seed of each environment's current episode, int64 [N]; None for a vector environment's own draws."""

    def close(self) -> None:
        """Release the environments."""


def make_group(spec: EnvSpec, *, native: bool, seed: int, stream: int, first_env: int, num_envs: int) -> Group:
    """The environments with the run-wide numbers first_env to first_env + num_envs - 1, not started."""
    kind = NativeGroup if native else SyncGroup
    return kind(spec, seed=seed, stream=stream, first_env=first_env, num_envs=num_envs)


class SyncGroup:
    """Single environments stepped in turn; an ended one is reset at once, with the seed of its next episode."""

    resets_in_next_step = False

    def __init__(self, spec: EnvSpec, *, seed: int, stream: int, first_env: int, num_envs: int) -> None:
        self.env_id = spec.id
        self.num_envs = num_envs
        self._seed, self._stream, self._first = seed, stream, first_env
        self.envs = [make_single(spec) for _ in range(num_envs)]
        self.observation_space = observation_spec(self.envs[0].observation_space, spec.id)
        self.action_space = action_spec(self.envs[0].action_space, spec.id)
        self._getters = [(leaf, getter(leaf, self.observation_space.structure))
                         for leaf in self.observation_space.leaves]  # fmt: skip
        self.observation = allocate(self.observation_space, num_envs)
        self.pending = np.zeros(num_envs, bool)
        self.episode = np.full(num_envs, -1, np.int64)
        self._discrete = self.action_space.only.kind == "discrete"
        self._t = np.zeros(num_envs, np.int64)  # env steps in the current episode, to name one that goes wrong

    def episode_seed(self, env: int, episode: int) -> int:
        """The reset seed of an episode: a function of the run's seed, the environment and the episode's ordinal."""
        return seeding.integer(self._seed, self._stream, self._first + env, episode)

    def seeds(self) -> np.ndarray | None:
        return np.array([self.episode_seed(i, int(e)) for i, e in enumerate(self.episode)], np.int64)

    def start(self, iteration: int) -> None:
        for i in range(self.num_envs):
            self.reset(i)

    def reset(self, i: int) -> None:
        """Begin the next episode of environment i."""
        self.episode[i] += 1
        self._t[i] = 0
        seed = self.episode_seed(i, int(self.episode[i]))
        try:
            observation, _ = self.envs[i].reset(seed=seed)
            self.put(i, observation)
        except Exception as error:
            raise RunError(
                where=f"environment {self.env_id} number {self._first + i}", got=f"{type(error).__name__}: {error}",
                wanted=f"an observation from reset(seed={seed})", todo="reproduce it with that seed",
            ) from error  # fmt: skip

    def put(self, i: int, observation: Any) -> None:
        """Write environment i's observation into the batch; ValueError for one of another shape or kind."""
        for leaf, get in self._getters:
            self.observation[leaf.name][i] = fitting(leaf, get(observation), leaf.shape)

    def advance(self, i: int, action: Any) -> tuple[float, bool, bool]:
        """One step of environment i: its reward, whether the episode terminated, whether it was truncated."""
        # A copy, because the caller records the action, and environments may scale theirs in place.
        plain = int(action) if self._discrete else np.array(action)
        try:
            observation, reward, terminated, truncated, _ = self.envs[i].step(plain)
            self.put(i, observation)
            self._t[i] += 1
            return float(reward), bool(terminated), bool(truncated)
        except Exception as error:
            raise self._broke(i, action, error) from error

    def step(self, action: np.ndarray) -> Step:
        num_envs = self.num_envs
        reward = np.empty(num_envs, np.float64)
        terminated, truncated = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
        ended: list[int] = []
        final: list[Leaves] = []
        for i in range(num_envs):
            reward[i], terminated[i], truncated[i] = self.advance(i, action[i])
            if terminated[i] or truncated[i]:
                ended.append(i)
                final.append({name: values[i].copy() for name, values in self.observation.items()})
                self.reset(i)
        stacked = {name: np.stack([one[name] for one in final]) if final else values[:0]
                   for name, values in self.observation.items()}  # fmt: skip
        return Step(reward, terminated, truncated, np.array(ended, np.int64), stacked)

    def _broke(self, i: int, action: Any, error: Exception) -> RunError:
        episode = int(self.episode[i])
        return RunError(
            where=f"environment {self.env_id} number {self._first + i}, episode {episode} "
            f"(seed {self.episode_seed(i, episode)}), step {self._t[i]}, action {action!r}",
            got=f"{type(error).__name__}: {error}",
            wanted="an observation of its space, a reward and two flags",
            todo="replay that episode: its actions are in the transitions committed so far",
        )  # fmt: skip

    def carry(self, *, with_state: bool) -> Carried:
        carried = _position(self)
        if with_state:
            trees = []
            for i, env in enumerate(self.envs):
                tree, arrays = state.capture(env)
                trees.append(tree)
                carried.arrays.update({f"env.{i}.{name}": array for name, array in arrays.items()})
            carried.tree = trees
            carried.arrays["t"] = self._t.copy()
        return carried

    def resume(self, carried: Carried) -> None:
        for i, (env, tree) in enumerate(zip(self.envs, carried.tree, strict=True)):
            env.reset(seed=0)  # creates what only a reset creates; the captured state then replaces it
            prefix = f"env.{i}."
            state.restore(env, tree, {name.removeprefix(prefix): array for name, array in carried.arrays.items()
                                      if name.startswith(prefix)})  # fmt: skip
        self._t = carried.arrays["t"].copy()
        _take_position(self, carried)

    def close(self) -> None:
        for env in self.envs:
            env.close()


class NativeGroup:
    """A vector environment, in whichever way it resets itself."""

    def __init__(self, spec: EnvSpec, *, seed: int, stream: int, first_env: int, num_envs: int) -> None:
        self.env_id = spec.id
        self.num_envs = num_envs
        self._seed, self._stream, self._first = seed, stream, first_env
        self.env = make_native(spec, num_envs)
        self._mode = autoreset_mode(self.env)
        self.observation_space = observation_spec(self.env.single_observation_space, spec.id)
        self.action_space = action_spec(self.env.single_action_space, spec.id)
        self._getters = [(leaf, getter(leaf, self.observation_space.structure))
                         for leaf in self.observation_space.leaves]  # fmt: skip
        self.observation: Leaves = allocate(self.observation_space, num_envs)
        self.pending = np.zeros(num_envs, bool)
        self.episode = np.full(num_envs, -1, np.int64)
        self.resets_in_next_step = self._mode is AutoresetMode.NEXT_STEP

    def seeds(self) -> np.ndarray | None:
        return None

    def start(self, iteration: int) -> None:
        seed = seeding.integer(self._seed, self._stream, self._first, iteration)
        observation, _ = self.env.reset(seed=seed)
        self.observation = self._leaves(observation, self.num_envs)
        self.episode += 1
        self.pending[:] = False

    def _leaves(self, observation: Any, *lead: int) -> Leaves:
        return {leaf.name: fitting(leaf, get(observation), (*lead, *leaf.shape)).astype(leaf.dtype, copy=False)
                for leaf, get in self._getters}  # fmt: skip

    def step(self, action: np.ndarray) -> Step:
        try:
            # A copy, because the caller records the actions, and environments may scale theirs in place.
            return self._taken(*self.env.step(action.copy()))
        except Exception as error:
            last = self._first + self.num_envs - 1
            raise RunError(
                where=f"vector environment {self.env_id}, environments {self._first} to {last}",
                got=f"{type(error).__name__}: {error}",
                wanted="a step of all its environments", todo="try [env] vectorization = 'sync', which names the one",
            ) from error  # fmt: skip

    def _taken(
        self, raw: Any, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]
    ) -> Step:
        """What the step was, by the autoreset mode: `raw` are final, reset or ordinary observations."""
        self.observation = self._leaves(raw, self.num_envs)
        over = terminated | truncated
        if self.resets_in_next_step:
            self.episode += over
            self.pending = over
            return Step(reward, terminated, truncated)
        ended = np.flatnonzero(over)
        if self._mode is AutoresetMode.SAME_STEP:
            final = self._final_of(info, ended)
        else:
            final = {name: values[ended] for name, values in self.observation.items()}
            if len(ended):
                # Copies, because the reset may clear the environment's own arrays.
                reward, terminated, truncated = reward.copy(), terminated.copy(), truncated.copy()
                self.observation = self._leaves(self.env.reset(options={"reset_mask": over})[0], self.num_envs)
        self.episode[ended] += 1
        return Step(reward, terminated, truncated, ended, final)

    def _final_of(self, info: dict[str, Any], ended: np.ndarray) -> Leaves:
        found = info.get("final_obs")
        if found is not None and not (isinstance(found, np.ndarray) and found.dtype == object):
            return {name: values[ended] for name, values in self._leaves(found, self.num_envs).items()}
        rows = [self._leaves(one) for one in found[ended]] if found is not None else []
        return {name: np.stack([row[name] for row in rows]) if rows else values[:0]
                for name, values in self.observation.items()}  # fmt: skip

    def carry(self, *, with_state: bool) -> Carried:
        carried = _position(self)
        if with_state:
            carried.tree, carried.arrays = state.capture(self.env)
        return carried

    def resume(self, carried: Carried) -> None:
        self.env.reset(seed=0)
        state.restore(self.env, carried.tree, carried.arrays)
        _take_position(self, carried)

    def close(self) -> None:
        self.env.close()


def _position(group: Group) -> Carried:
    observation = {name: values.copy() for name, values in group.observation.items()}
    return Carried(observation=observation, pending=group.pending.copy(), episode=group.episode.copy())


def _take_position(group: Group, carried: Carried) -> None:
    group.observation = {name: values.copy() for name, values in carried.observation.items()}
    group.pending = carried.pending.copy()
    group.episode = carried.episode.copy()
